#include "daemon/options.h"

#include <stdlib.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/wire/limits.h"

namespace bpfgrant::daemon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusCode ParseCode(const std::string& text) {
  uid_t uid = 0;
  gid_t gid = 0;
  return ParseUser(text, uid, gid).code();
}

TEST(ParseUserTest, TakesNumbers) {
  uid_t uid = 0;
  gid_t gid = 0;
  EXPECT_TRUE(ParseUser("1000", uid, gid).ok());
  EXPECT_EQ(uid, 1000u);
  EXPECT_EQ(gid, 1000u);
  EXPECT_TRUE(ParseUser("1000:2000", uid, gid).ok());
  EXPECT_EQ(uid, 1000u);
  EXPECT_EQ(gid, 2000u);
}

TEST(ParseUserTest, TakesNames) {
  uid_t uid = 0;
  gid_t gid = 0;
  ASSERT_TRUE(ParseUser("nobody", uid, gid).ok());
  EXPECT_NE(uid, 0u);
  EXPECT_NE(gid, 0u);
}

TEST(ParseUserTest, RefusesNamesNobodyHas) {
  EXPECT_EQ(ParseCode("no-such-user"), absl::StatusCode::kNotFound);
  EXPECT_EQ(ParseCode(""), absl::StatusCode::kNotFound);
  EXPECT_EQ(ParseCode("-1"), absl::StatusCode::kNotFound);
  EXPECT_EQ(ParseCode("4294967296"), absl::StatusCode::kNotFound);
}

TEST(ParseUserTest, RefusesWhatIsNoUserAndGroup) {
  for (const char* text : {"1000:", "1000:x", "1000:1:1", "1000:4294967296"}) {
    EXPECT_EQ(ParseCode(text), absl::StatusCode::kInvalidArgument) << text;
  }
}

// To setresuid(2) it means "leave it as it is": root, that is.
TEST(ParseUserTest, RefusesTheNumberThatMeansNoChange) {
  uid_t uid = 0;
  gid_t gid = 0;
  for (const char* text : {"4294967295", "1000:4294967295"}) {
    EXPECT_EQ(ParseUser(text, uid, gid).code(),
              absl::StatusCode::kInvalidArgument)
        << text;
  }
}

TEST(ParseUserTest, RefusesRoot) {
  for (const char* text : {"0", "root", "0:1000", "1000:0"}) {
    EXPECT_EQ(ParseCode(text), absl::StatusCode::kInvalidArgument) << text;
  }
}

class ReadOptionsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string path = "/tmp/bpfgrant-options-XXXXXX";
    const int fd = mkstemp(path.data());
    ASSERT_GE(fd, 0);
    close(fd);
    config_ = path;
  }
  void TearDown() override { unlink(config_.c_str()); }

  void Write(const std::string& text) { std::ofstream(config_) << text; }
  // With this configuration and `arguments`.
  std::variant<Options, int> Read(std::vector<std::string> arguments = {}) {
    arguments.insert(arguments.begin(), {"bpfgrantd", "--config", config_});
    return ReadRaw(std::move(arguments));
  }
  std::variant<Options, int> ReadRaw(std::vector<std::string> arguments) {
    std::vector<char*> pointers;
    for (std::string& argument : arguments) pointers.push_back(argument.data());
    ::testing::internal::CaptureStderr();
    ::testing::internal::CaptureStdout();
    auto result =
        ReadOptions(static_cast<int>(pointers.size()), pointers.data());
    said_ = ::testing::internal::GetCapturedStderr();
    printed_ = ::testing::internal::GetCapturedStdout();
    return result;
  }
  Options MustRead(std::vector<std::string> arguments = {}) {
    auto result = Read(std::move(arguments));
    EXPECT_TRUE(std::holds_alternative<Options>(result)) << said_;
    return std::holds_alternative<Options>(result) ? std::get<Options>(result)
                                                   : Options();
  }
  void ExpectUsageError(const std::variant<Options, int>& result) {
    ASSERT_TRUE(std::holds_alternative<int>(result));
    EXPECT_EQ(std::get<int>(result), 2);
    EXPECT_NE(said_, "");
  }

  std::string config_;
  std::string said_;
  std::string printed_;
};

TEST_F(ReadOptionsTest, FillsInDefaults) {
  const Options options = MustRead({"--user", "1000"});
  EXPECT_EQ(options.runtime_directory, "/run/bpfgrant");
  EXPECT_THAT(options.catalog_directories,
              ElementsAre("/usr/lib/bpfgrant/programs",
                          "/run/bpfgrant/programs", "/etc/bpfgrant/programs"));
  EXPECT_THAT(options.policy_directories,
              ElementsAre("/usr/lib/bpfgrant/policy.d",
                          "/run/bpfgrant/policy.d", "/etc/bpfgrant/policy.d"));
  EXPECT_THAT(options.admission_files,
              ElementsAre("/usr/lib/bpfgrant/admission.conf",
                          "/etc/bpfgrant/admission.conf"));
  EXPECT_THAT(options.key_directories,
              ElementsAre("/usr/lib/bpfgrant/keys", "/run/bpfgrant/keys",
                          "/etc/bpfgrant/keys"));
  EXPECT_FALSE(options.administrator_group.has_value());
  EXPECT_FALSE(options.identify_by_nonce);
  EXPECT_EQ(options.limits.sessions(), kDefaultSessions);
  EXPECT_EQ(options.limits.sessions_per_user(), kDefaultSessionsPerUser);
  EXPECT_EQ(options.limits.handshake_ms(), kDefaultHandshakeMs);
  EXPECT_EQ(options.limits.pool_bytes(), kDefaultPoolBytes);
  EXPECT_EQ(options.limits.grants_per_session(), kDefaultGrantsPerSession);
  EXPECT_EQ(options.limits.polkit_ms(), kPolkitDeadline.count());
}

constexpr char kFull[] = R"(runtime_directory: "/run/other"
catalog_directory: "/a"
catalog_directory: "/b"
policy_directory: "/c"
admission_file: "/d"
key_directory: "/k"
broker_user: "1000:2000"
administrator_group: "3000"
limits { sessions: 10 handshake_ms: 100 }
)";

TEST_F(ReadOptionsTest, TakesTheConfiguration) {
  Write(kFull);
  const Options options = MustRead();
  EXPECT_EQ(options.runtime_directory, "/run/other");
  EXPECT_THAT(options.catalog_directories, ElementsAre("/a", "/b"));
  EXPECT_THAT(options.policy_directories, ElementsAre("/c"));
  EXPECT_THAT(options.admission_files, ElementsAre("/d"));
  EXPECT_THAT(options.key_directories, ElementsAre("/k"));
  EXPECT_EQ(options.broker_uid, 1000u);
  EXPECT_EQ(options.broker_gid, 2000u);
  EXPECT_EQ(options.administrator_group, 3000u);
  EXPECT_EQ(options.limits.sessions(), 10u);
  EXPECT_EQ(options.limits.handshake_ms(), 100u);
  EXPECT_EQ(options.limits.pool_bytes(), kDefaultPoolBytes);
}

TEST_F(ReadOptionsTest, CommandLineOverridesTheConfiguration) {
  Write(kFull);
  const Options options = MustRead(
      {"--runtime-dir", "/run/third", "--catalog", "/x", "--catalog", "/y",
       "--policy", "/z", "--admission", "/w", "--keys", "/l", "--user", "5",
       "--admin-group", "6", "--identify", "nonce", "--verbose"});
  EXPECT_EQ(options.runtime_directory, "/run/third");
  // In the order given: later ones override by file name.
  EXPECT_THAT(options.catalog_directories, ElementsAre("/x", "/y"));
  EXPECT_THAT(options.policy_directories, ElementsAre("/z"));
  EXPECT_THAT(options.admission_files, ElementsAre("/w"));
  EXPECT_THAT(options.key_directories, ElementsAre("/l"));
  EXPECT_EQ(options.broker_uid, 5u);
  EXPECT_EQ(options.administrator_group, 6u);
  EXPECT_TRUE(options.identify_by_nonce);
  EXPECT_TRUE(options.verbose);
}

TEST_F(ReadOptionsTest, ErrorsInTheConfigurationHaveTheirPlace) {
  Write("broker_user: \"1000\"\n  no_such_field: 1\n");
  ExpectUsageError(Read());
  EXPECT_THAT(said_, HasSubstr(absl::StrCat(config_, ":2:3:")));

  Write("limits {\n  sessions: \"many\"\n}\n");
  ExpectUsageError(Read());
  EXPECT_THAT(said_, HasSubstr(absl::StrCat(config_, ":2:")));

  Write("limits { sessions: 1 ");
  ExpectUsageError(Read());
  EXPECT_THAT(said_, HasSubstr(absl::StrCat(config_, ":1:")));
}

TEST_F(ReadOptionsTest, ConfigurationThatWasNamedMustBeThere) {
  unlink(config_.c_str());
  ExpectUsageError(Read({"--user", "1000"}));
  EXPECT_THAT(said_, HasSubstr(config_));
}

TEST_F(ReadOptionsTest, ConfigurationMustBeAFile) {
  ExpectUsageError(
      ReadRaw({"bpfgrantd", "--config", "/dev/null", "--user", "1000"}));
  ExpectUsageError(
      ReadRaw({"bpfgrantd", "--config", "/tmp", "--user", "1000"}));
}

TEST_F(ReadOptionsTest, UnknownUsersAndGroupsAreErrors) {
  ExpectUsageError(Read({"--user", "no-such-user"}));
  EXPECT_THAT(said_, HasSubstr("no-such-user"));
  ExpectUsageError(Read({"--user", "1000", "--admin-group", "no-such-group"}));
  EXPECT_THAT(said_, HasSubstr("no-such-group"));
}

TEST_F(ReadOptionsTest, BadUsageIsTwoAndHelpIsZero) {
  ExpectUsageError(Read({"--no-such-option"}));
  ExpectUsageError(Read({"--identify", "guess"}));
  ExpectUsageError(Read({"stray"}));
  EXPECT_EQ(std::get<int>(ReadRaw({"bpfgrantd", "--help"})), 0);
  EXPECT_THAT(printed_, HasSubstr("--catalog"));
  EXPECT_EQ(std::get<int>(ReadRaw({"bpfgrantd", "--version"})), 0);
  EXPECT_THAT(printed_, HasSubstr(BPFGRANT_VERSION));
}

}  // namespace
}  // namespace bpfgrant::daemon
