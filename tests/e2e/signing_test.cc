// keygen, sign and verify-signature, and that openssl(1) understands the keys
// and the signatures, both ways.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "bpfgrant/v1/signature.pb.h"
#include "google/protobuf/util/json_util.h"
#include "tests/harness/private_folder.h"
#include "tests/harness/unprivileged.h"

namespace bpfgrant::test {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr int kRefused = 1, kUsage = 2;

class SigningVerbsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "privilege: root's files";
    Write("x.manifest", "name: \"x\"\n");
  }
  std::string Path(const std::string& name) const { return folder_ / name; }
  void Write(const std::string& name, const std::string& bytes) {
    std::ofstream(Path(name), std::ios::binary) << bytes;
    ASSERT_EQ(chmod(Path(name).c_str(), 0644), 0);
  }
  std::string Read(const std::string& name) const {
    std::ifstream file(Path(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  mode_t ModeOf(const std::string& name) const {
    struct stat info {};
    EXPECT_EQ(stat(Path(name).c_str(), &info), 0) << name;
    return info.st_mode & 07777;
  }
  // Root's files, without root's capabilities.
  Outcome Ctl(const std::vector<std::string>& words) {
    UnprivilegedOptions options;
    options.uid = 0;
    options.gid = 0;
    return RunUnprivileged(BPFGRANTCTL_PATH, words, options);
  }
  Outcome Keygen(const std::string& name) {
    return Ctl({"keygen", name, "--directory", folder_});
  }
  Outcome Sign(const std::string& key) {
    return Ctl({"sign", Path("x.manifest"), "--key", Path(key)});
  }
  Outcome Verify(const std::vector<std::string>& more = {}) {
    std::vector<std::string> words = {"verify-signature", Path("x.manifest"),
                                      "--keys", folder_};
    words.insert(words.end(), more.begin(), more.end());
    return Ctl(words);
  }
  // What a shell says of it: these names need no quoting.
  int Shell(const std::string& command) {
    return std::system(
        absl::StrCat("cd ", folder_.string(), " && ", command).c_str());
  }
  // As the manual page writes it.
  static constexpr char kMessage[] =
      "{ printf 'bpfgrant-signature-v1\\0x.manifest\\0'; cat x.manifest; } "
      "> message";
  const PrivateFolder private_;
  const std::filesystem::path folder_ = private_.path();
};

TEST_F(SigningVerbsTest, MakeSignAndVerify) {
  const mode_t before = umask(0);
  const Outcome keygen = Keygen("one");
  EXPECT_EQ(keygen.exit_code, 0) << keygen.errors;
  const Outcome made = Sign("one.key");
  umask(before);
  EXPECT_EQ(made.exit_code, 0) << made.errors;
  EXPECT_EQ(ModeOf("one.key"), 0600u);
  EXPECT_EQ(ModeOf("one.pub"), 0644u);
  EXPECT_EQ(ModeOf("x.manifest.sig"), 0644u);
  const Outcome verified = Verify();
  EXPECT_EQ(verified.exit_code, 0) << verified.errors;
  EXPECT_THAT(verified.output, HasSubstr("valid"));
  Write("x.manifest", "name: \"y\"\n");
  EXPECT_EQ(Verify().exit_code, kRefused);
}

TEST_F(SigningVerbsTest, NothingIsOverwritten) {
  ASSERT_EQ(Keygen("one").exit_code, 0);
  const std::string secret = Read("one.key"), known = Read("one.pub");
  EXPECT_EQ(Keygen("one").exit_code, kUsage);
  std::filesystem::remove(Path("one.key"));
  EXPECT_EQ(Keygen("one").exit_code, kUsage);
  EXPECT_FALSE(std::filesystem::exists(Path("one.key")));
  EXPECT_EQ(Read("one.pub"), known);
  // Nor what a link leads to.
  std::filesystem::remove(Path("one.pub"));
  Write("elsewhere", "kept");
  std::filesystem::create_symlink("elsewhere", Path("one.key"));
  EXPECT_EQ(Keygen("one").exit_code, kUsage);
  EXPECT_EQ(Read("elsewhere"), "kept");
}

TEST_F(SigningVerbsTest, SeveralSign) {
  ASSERT_EQ(Keygen("one").exit_code, 0);
  ASSERT_EQ(Keygen("two").exit_code, 0);
  ASSERT_EQ(Sign("one.key").exit_code, 0);
  ASSERT_EQ(Sign("two.key").exit_code, 0);
  // Again: in the place of the one before.
  ASSERT_EQ(Sign("one.key").exit_code, 0);
  std::filesystem::remove(Path("two.pub"));
  const Outcome outcome = Verify({"--json"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
  v1::VerifySignatureReply reply;
  ASSERT_TRUE(
      google::protobuf::util::JsonStringToMessage(outcome.output, &reply).ok());
  EXPECT_TRUE(reply.valid());
  EXPECT_EQ(reply.signed_name(), "x.manifest");
  ASSERT_EQ(reply.signature_size(), 2);
  EXPECT_EQ(reply.signature(0).key(), "two");
  EXPECT_FALSE(reply.signature(0).valid());
  EXPECT_THAT(reply.signature(0).complaint(), HasSubstr("no key 'two'"));
  EXPECT_TRUE(reply.signature(1).valid());
}

TEST_F(SigningVerbsTest, ADropInIsSignedAsOne) {
  ASSERT_EQ(Keygen("one").exit_code, 0);
  std::filesystem::create_directory(Path("x.manifest.d"));
  Write("x.manifest.d/10-a.conf", "tag: \"a\"\n");
  const Outcome made = Ctl({"sign", Path("x.manifest.d/10-a.conf"), "--key",
                            Path("one.key"), "--json"});
  EXPECT_EQ(made.exit_code, 0) << made.errors;
  EXPECT_THAT(made.output, HasSubstr("\"x.manifest.d/10-a.conf\""));
  EXPECT_EQ(Ctl({"verify-signature", Path("x.manifest.d/10-a.conf"), "--keys",
                 folder_})
                .exit_code,
            0);
}

TEST_F(SigningVerbsTest, OpensslVerifiesOurs) {
  ASSERT_EQ(Keygen("one").exit_code, 0);
  ASSERT_EQ(Sign("one.key").exit_code, 0);
  ASSERT_EQ(Shell(kMessage), 0);
  ASSERT_EQ(Shell("cut -d' ' -f2 x.manifest.sig | base64 -d > signature"), 0);
  const std::string verify =
      "openssl pkeyutl -verify -pubin -inkey one.pub -rawin -in message "
      "-sigfile signature > /dev/null 2>&1";
  EXPECT_EQ(Shell(verify), 0);
  ASSERT_EQ(Shell("echo >> message"), 0);
  EXPECT_NE(Shell(verify), 0);
}

TEST_F(SigningVerbsTest, WeVerifyOpenssls) {
  ASSERT_EQ(Shell("openssl genpkey -algorithm ed25519 -out their.key && "
                  "openssl pkey -in their.key -pubout -out their.pub"),
            0);
  ASSERT_EQ(Shell(kMessage), 0);
  ASSERT_EQ(Shell("openssl pkeyutl -sign -inkey their.key -rawin -in message "
                  "-out signature && echo \"their $(base64 -w0 signature)\" > "
                  "x.manifest.sig"),
            0);
  const Outcome verified = Verify();
  EXPECT_EQ(verified.exit_code, 0) << verified.output << verified.errors;
  // And sign with it.
  std::filesystem::remove(Path("x.manifest.sig"));
  ASSERT_EQ(Sign("their.key").exit_code, 0);
  EXPECT_EQ(Verify().exit_code, 0);
}

TEST_F(SigningVerbsTest, WrongUse) {
  for (const char* name : {"../x", "", "a b"}) {
    EXPECT_EQ(Keygen(name).exit_code, kUsage) << name;
  }
  EXPECT_EQ(Sign("none.key").exit_code, kUsage);
  ASSERT_EQ(Keygen("one").exit_code, 0);
  const Outcome refused = Sign("one.pub");
  EXPECT_EQ(refused.exit_code, kRefused);
  EXPECT_THAT(refused.errors, HasSubstr("BEGIN PRIVATE KEY"));
  EXPECT_EQ(Verify().exit_code, kUsage);
  Write("x.manifest.sig", "rubbish\n");
  EXPECT_EQ(Verify().exit_code, kRefused);
  // What is there is not thrown away.
  EXPECT_EQ(Sign("one.key").exit_code, kRefused);
  EXPECT_EQ(Read("x.manifest.sig"), "rubbish\n");
  ASSERT_EQ(Shell("openssl genpkey -algorithm x25519 -out other.key"), 0);
  EXPECT_THAT(Sign("other.key").errors, HasSubstr("Ed25519"));
}

}  // namespace
}  // namespace bpfgrant::test
