#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "policy/signatures.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::policy {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

absl::StatusOr<SignatureRules> CompileAll(
    const std::vector<PolicyText>& texts) {
  return SignatureRules::Compile(texts, {"/usr/lib/x", "/etc/x"});
}

TEST(SignatureRulesTest, SayWhichFilesTheyAreAbout) {
  const auto rules = CompileAll(
      {{"p",
        "signature { name: 'vendor' directory: '/usr/lib/x' }\n"
        "signature { name: 'net' program: 'net_*' program: 'filte?' }"},
       {"q", "signature { name: 'both' directory: '/etc/x' program: 'one' }"}});
  ASSERT_TRUE(rules.ok()) << rules.status();
  const auto names = [&](const char* directory, const char* program) {
    std::vector<std::string> found;
    for (const CompiledSignatureRule* rule : rules->For(directory, program)) {
      found.push_back(rule->rule.name() + "@" + rule->place);
    }
    return found;
  };
  EXPECT_THAT(names("/usr/lib/x", "one"), ::testing::ElementsAre("vendor@p:1"));
  EXPECT_THAT(names("/usr/lib/x", "net_a"),
              ::testing::ElementsAre("vendor@p:1", "net@p:2"));
  EXPECT_THAT(names("/etc/x", "filter"), ::testing::ElementsAre("net@p:2"));
  EXPECT_THAT(names("/etc/x", "one"), ::testing::ElementsAre("both@q:1"));
  EXPECT_THAT(names("/etc/x", "two"), ::testing::IsEmpty());
}

TEST(SignatureRulesTest, ComplainWithThePlace) {
  for (const auto& [text, what] :
       {std::pair{"signature { program: '*' }", "p:1:1: signature '' needs"},
        std::pair{"signature { name: 'a' }", "p:1:13: signature 'a' is about"},
        std::pair{"signature { name: 'a' directory: '/usr/lib/x/' }",
                  "p:1:23: signature 'a' names /usr/lib/x/, which"},
        std::pair{"signature { name: 'a' program: ['a', '[a]'] }",
                  "p:1:38: signature 'a' names program '[a]'"},
        std::pair{"signature { name: 'a' program: '' }", "p:1:23:"},
        std::pair{"signature { name: 'a' program: '*' key: '../a' }",
                  "p:1:36: signature 'a' names key '../a'"},
        std::pair{"signature { name: 'a' program: '*' key: '' }", "p:1:36:"},
        std::pair{"signature { name: 'a' program: '*' }\n"
                  "signature { name: 'a' program: '*' }",
                  "p:2:13: signature 'a' has its name from the one at p:1"}}) {
    const auto rules = CompileAll({{"p", text}});
    EXPECT_EQ(ReasonOf(rules.status()), v1::REASON_FILE_INVALID) << text;
    EXPECT_THAT(std::string(rules.status().message()), StartsWith(what));
  }
  const auto twice =
      CompileAll({{"p", "signature { name: 'a' program: '*' }"},
                  {"q", "signature { name: 'a' program: '*' }"}});
  EXPECT_THAT(std::string(twice.status().message()), HasSubstr("at p:1"));
}

TEST(SignatureRulesTest, NamesOfKeys) {
  for (const char* name : {"a", "Vendor-2.0_x", "0"}) {
    EXPECT_TRUE(IsKeyName(name)) << name;
  }
  for (const std::string& name :
       {std::string(), std::string("."), std::string("-a"), std::string("a/b"),
        std::string("a b"), std::string(64, 'a')}) {
    EXPECT_FALSE(IsKeyName(name)) << name;
  }
}

}  // namespace
}  // namespace bpfgrant::policy
