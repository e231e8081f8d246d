#include "daemon/loader/policy_files.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <string>

#include "tests/catalog/catalog_fixture.h"

namespace bpfgrant::daemon {
namespace {

std::string RuleText(const std::string& name, const std::string& user) {
  return "rule { name: \"" + name + "\" effect: ALLOW user: \"" + user +
         "\" program: \"*\" quota { grants: 1 } }\n";
}

class PolicyFilesTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::vector<CompiledRule>> Read(
      const Mitigations& mitigations = {}) {
    auto policy = ReadPolicy({vendor_.path(), local_.path(), "/tmp/absent"},
                             {"/catalog"}, mitigations);
    if (!policy.ok()) return policy.status();
    return policy->rules;
  }
  TemporaryFolder vendor_, local_;
};

TEST_F(PolicyFilesTest, ReadsInTheOrderOfNamesAcrossFolders) {
  vendor_.Write("20-b.policy", RuleText("b", "root"));
  local_.Write("10-a.policy", RuleText("a", "nobody"));
  const auto rules = Read();
  ASSERT_TRUE(rules.ok()) << rules.status();
  ASSERT_EQ(rules->size(), 2u);
  EXPECT_EQ((*rules)[0].name(), "a");
  EXPECT_EQ((*rules)[0].uid(0), 65534u);
  EXPECT_EQ((*rules)[0].file(), local_.path() + "/10-a.policy");
  EXPECT_EQ((*rules)[1].uid(0), 0u);
}

TEST_F(PolicyFilesTest, LaterFoldersOverrideByFileName) {
  vendor_.Write("x.policy", RuleText("vendor", "root"));
  local_.Write("x.policy", RuleText("local", "root"));
  const auto rules = Read();
  ASSERT_TRUE(rules.ok()) << rules.status();
  ASSERT_EQ(rules->size(), 1u);
  EXPECT_EQ((*rules)[0].name(), "local");
}

// A package's mistake can be put right without touching its files.
TEST_F(PolicyFilesTest, AnOverriddenOrMaskedFileIsNotRead) {
  const std::string broken = vendor_.Write("x.policy", "rubbish");
  ASSERT_EQ(chmod(broken.c_str(), 0666), 0);
  EXPECT_FALSE(Read().ok());
  local_.Write("x.policy", "");
  ASSERT_TRUE(Read().ok());
  EXPECT_TRUE(Read()->empty());
  std::filesystem::remove(local_.path() + "/x.policy");
  std::filesystem::create_symlink("/dev/null", local_.path() + "/x.policy");
  EXPECT_TRUE(Read().ok());
  std::filesystem::remove(local_.path() + "/x.policy");
  local_.Write("x.policy", RuleText("local", "root"));
  EXPECT_EQ(Read()->size(), 1u);
}

TEST_F(PolicyFilesTest, OneComplaintEndsIt) {
  vendor_.Write("a.policy", RuleText("a", "root"));
  local_.Write("b.policy", "\nrule { name: 1 }");
  EXPECT_THAT(Read().status(),
              Refused(v1::REASON_FILE_INVALID, local_.path() + "/b.policy:2:"));
  local_.Write("b.policy", RuleText("b", "nobody_of_that_name"));
  EXPECT_THAT(Read().status(),
              Refused(v1::REASON_FILE_INVALID, "nobody_of_that_name"));
}

TEST_F(PolicyFilesTest, UnsafeFilesAndFolders) {
  const std::string path = local_.Write("a.policy", RuleText("a", "root"));
  ASSERT_EQ(chmod(path.c_str(), 0666), 0);
  EXPECT_THAT(Read().status(), Refused(v1::REASON_FILE_UNSAFE, "everybody"));
  // The attack: everybody's file decides.
  Mitigations off;
  off.file_safety = false;
  EXPECT_TRUE(Read(off).ok());
  ASSERT_EQ(chmod(path.c_str(), 0644), 0);
  ASSERT_EQ(chmod(local_.path().c_str(), 0777), 0);
  EXPECT_THAT(Read().status(), Refused(v1::REASON_FILE_UNSAFE, "everybody"));
}

}  // namespace
}  // namespace bpfgrant::daemon
