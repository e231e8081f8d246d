// The example policies, read and asked as a daemon does.

#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "policy/policy.h"
#include "tests/unit/compile_text.h"

namespace bpfgrant::policy {
namespace {

constexpr uid_t kWebServer = 33;

class DebianResolver : public FakeResolver {
 public:
  absl::StatusOr<uid_t> User(std::string_view name) const override {
    if (name == "www-data") return kWebServer;
    return FakeResolver::User(name);
  }
};

class ExamplesTest : public ::testing::Test {
 protected:
  // Reads the example of that name.
  static Rules Read(const std::string& name) {
    const std::string path =
        absl::StrCat(POLICY_FOLDER, "/examples/", name, ".policy");
    std::ifstream file(path);
    EXPECT_TRUE(file.good()) << path;
    const std::vector<PolicyText> texts = {
        {path, {std::istreambuf_iterator<char>(file), {}}}};
    auto rules = Compile(texts, DebianResolver());
    EXPECT_TRUE(rules.ok()) << rules.status();
    return Rules(*std::move(rules));
  }
  static Subject From(uid_t uid, const std::string& cgroup) {
    Subject subject;
    subject.uid = uid;
    subject.gid = uid;
    subject.location = Locate(cgroup);
    return subject;
  }
};

TEST_F(ExamplesTest, NginxIsTheSystemsNginxAlone) {
  const Rules rules = Read("nginx");
  const auto may = [&](uid_t uid, const std::string& cgroup) {
    return rules.Decide(From(uid, cgroup), "reuseport_steer").allowed();
  };
  EXPECT_TRUE(may(kWebServer, "/system.slice/nginx.service"));
  EXPECT_FALSE(may(1000, "/system.slice/nginx.service"));
  EXPECT_FALSE(may(kWebServer, "/system.slice/cron.service"));
  EXPECT_FALSE(may(kWebServer,
                   "/user.slice/user-1000.slice/user@1000.service/app.slice/"
                   "nginx.service"));
  EXPECT_FALSE(may(kWebServer,
                   "/machine.slice/machine-web.scope/payload/system.slice/"
                   "nginx.service"));
  EXPECT_FALSE(rules
                   .Decide(From(kWebServer, "/system.slice/nginx.service"),
                           "packet_sampler")
                   .allowed());
  // What is not known is no reason to allow.
  Subject unknown = From(kWebServer, "/");
  unknown.location.reset();
  EXPECT_FALSE(rules.Decide(unknown, "reuseport_steer").allowed());
}

TEST_F(ExamplesTest, ADynamicUserIsKnownByItsUnit) {
  const Rules rules = Read("dynamic-user");
  for (const uid_t uid : {61184u, 62000u, 65519u}) {
    EXPECT_TRUE(rules
                    .Decide(From(uid,
                                 "/system.slice/system-packet\\x2dprobe.slice/"
                                 "packet-probe@eth0.service"),
                            "packet_sampler")
                    .allowed());
    EXPECT_FALSE(
        rules.Decide(From(uid, "/system.slice/x.service"), "packet_sampler")
            .allowed());
  }
}

TEST_F(ExamplesTest, ContainersAreKnownByTheirSlice) {
  const Rules rules = Read("containers");
  const auto may = [&](const std::string& cgroup) {
    return rules.Decide(From(100000, cgroup), "packet_sampler").allowed();
  };
  EXPECT_TRUE(may("/sampling.slice/docker-0123.scope"));
  EXPECT_TRUE(may("/sampling.slice/libpod-0123.scope/container"));
  EXPECT_FALSE(may("/machine.slice/libpod-0123.scope"));
  EXPECT_FALSE(
      may("/user.slice/user-1000.slice/user@1000.service/"
          "sampling.slice/libpod-0123.scope"));
}

}  // namespace
}  // namespace bpfgrant::policy
