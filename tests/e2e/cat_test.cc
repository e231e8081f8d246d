// `bpfgrantctl cat`, as nobody and without a daemon.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bpfgrant/v1/cat.pb.h"
#include "google/protobuf/util/json_util.h"
#include "tests/harness/private_folder.h"
#include "tests/harness/unprivileged.h"

namespace bpfgrant::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr int kRefused = 1, kUsage = 2;

class CatVerbTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "privilege: root's files";
    std::filesystem::create_directories(folder_ /
                                        "local/packet_sampler.manifest.d");
    std::filesystem::copy(
        absl::StrCat(CATALOG_FOLDER, "/packet_sampler.manifest"), folder_);
    Write("a.policy", "# first\n");
    Write("local/a.policy", "# second \xc3\xbc\n");
    Write("local/packet_sampler.manifest.d/10-ours.conf",
          "description: \"ours\"\n");
  }
  void Write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name) << text;
    ASSERT_EQ(chmod((folder_ / name).c_str(), 0644), 0);
  }
  Outcome Cat(std::vector<std::string> words) {
    const std::string vendor = folder_, local = folder_ / "local";
    words.insert(words.begin(), {"cat", "--catalog", vendor, "--catalog", local,
                                 "--policy", vendor, "--policy", local});
    return RunUnprivileged(BPFGRANTCTL_PATH, words);
  }
  const PrivateFolder private_;
  const std::filesystem::path folder_ = private_.path();
};

TEST_F(CatVerbTest, ShowsFilesAndTheResult) {
  const Outcome outcome = Cat({"packet_sampler"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
  const std::string& out = outcome.output;
  const std::string manifest = folder_ / "packet_sampler.manifest";
  const std::string ours = "packet_sampler.manifest.d/10-ours.conf\n";
  EXPECT_EQ(out.rfind("# " + manifest + "\n", 0), 0u) << out;
  EXPECT_THAT(out, HasSubstr(ours + "description: \"ours\"\n"));
  const size_t result = out.find("# packet_sampler.manifest: the result\n");
  ASSERT_NE(result, std::string::npos) << out;
  EXPECT_THAT(out.substr(result), HasSubstr("description: \"ours\""));
  EXPECT_EQ(Cat({"packet_sampler.manifest"}).output, out);
}

TEST_F(CatVerbTest, ShowsAPolicy) {
  const Outcome outcome = Cat({"a.policy"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_EQ(outcome.output,
            absl::StrCat("# ", folder_.string(), "/a.policy (replaced)\n# ",
                         folder_.string(), "/local/a.policy\n",
                         "# second \xc3\xbc\n"));
}

TEST_F(CatVerbTest, Json) {
  const Outcome outcome = Cat({"packet_sampler", "a.policy", "--json"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
  v1::CatReply reply;
  ASSERT_TRUE(
      google::protobuf::util::JsonStringToMessage(outcome.output, &reply).ok())
      << outcome.output;
  ASSERT_EQ(reply.entry_size(), 2);
  EXPECT_EQ(reply.entry(0).result().description(), "ours");
  EXPECT_EQ(reply.entry(1).file(0).state(), v1::CatFile::REPLACED);
  EXPECT_EQ(reply.entry(1).file(1).text(), "# second \xc3\xbc\n");
}

TEST_F(CatVerbTest, ExitCodes) {
  EXPECT_EQ(Cat({}).exit_code, kUsage);
  EXPECT_EQ(Cat({"nothing"}).exit_code, kRefused);
  EXPECT_EQ(Cat({"nothing.policy"}).exit_code, kRefused);
  Write("local/packet_sampler.manifest.d/10-ours.conf", "name: \"y\"\n");
  const Outcome refused = Cat({"packet_sampler"});
  EXPECT_EQ(refused.exit_code, kRefused);
  EXPECT_THAT(refused.errors, HasSubstr("10-ours.conf:1:1"));
  EXPECT_THAT(refused.output, Not(HasSubstr("the result")));
  Write("local/packet_sampler.manifest", "");
  const Outcome masked = Cat({"packet_sampler"});
  EXPECT_EQ(masked.exit_code, 0) << masked.errors;
  EXPECT_THAT(masked.output, HasSubstr("(masks)"));
}

// Nothing that is in a file reaches the terminal as it is.
TEST_F(CatVerbTest, NoBytesForTheTerminal) {
  Write("local/a.policy", "# \x1b[31m\xff\n");
  const Outcome outcome = Cat({"a.policy"});
  EXPECT_THAT(outcome.output, HasSubstr("# \\x1b[31m\\xff\n"));
  EXPECT_EQ(outcome.exit_code, kRefused);
}

}  // namespace
}  // namespace bpfgrant::test
