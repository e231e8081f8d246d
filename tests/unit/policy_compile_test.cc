#include <string>
#include <vector>

#include "absl/status/status.h"
#include "bpfgrant/daemon/loader.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "policy/policy.h"
#include "proto/refusal/refusal.h"
#include "tests/unit/compile_text.h"

namespace bpfgrant::policy {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::StartsWith;

using daemon::CompiledRule;

TEST(CompileTest, NothingMakesNoRules) {
  const auto none = Compile({}, FakeResolver());
  ASSERT_TRUE(none.ok());
  EXPECT_THAT(*none, IsEmpty());
  EXPECT_THAT(CompileOne("# empty\n").value(), IsEmpty());
}

TEST(CompileTest, TurnsNamesIntoNumbers) {
  const auto rules = CompileOne(
      "\nrule { name: 'r' effect: ALLOW user: ['alice', '7', '4294967294']\n"
      "  group: 'operators' group: '0' program: ['a', '*'] quota { grants: 3 "
      "}\n"
      "  trusted: true }");
  ASSERT_TRUE(rules.ok()) << rules.status();
  ASSERT_EQ(rules->size(), 1);
  const CompiledRule& rule = rules->front();
  EXPECT_EQ(rule.name(), "r");
  EXPECT_EQ(rule.file(), "p");
  EXPECT_EQ(rule.line(), 2);
  EXPECT_FALSE(rule.deny());
  EXPECT_FALSE(rule.everyone());
  EXPECT_THAT(rule.uid(), ElementsAre(1000, 7, 4294967294));
  EXPECT_THAT(rule.gid(), ElementsAre(50, 0));
  EXPECT_THAT(rule.program(), ElementsAre("a", "*"));
  EXPECT_EQ(rule.quota(), 3);
  EXPECT_TRUE(rule.trusted());
}

TEST(CompileTest, PutsDenyFirstAndKeepsTheOrderOfTheFiles) {
  const auto rule = [](const std::string& name, const std::string& rest) {
    return "rule { name: '" + name + "' everyone: true program: '*' " + rest +
           " }\n";
  };
  const std::string allow = "effect: ALLOW quota { grants: 1 }";
  const std::string deny = "effect: DENY";
  // Not sorted by name: the caller's order counts.
  const std::vector<PolicyText> texts = {
      {"z", rule("a1", allow) + rule("d1", deny) + rule("a2", allow)},
      {"a", rule("d2", deny) + rule("a3", allow)}};
  const auto rules = Compile(texts, FakeResolver());
  ASSERT_TRUE(rules.ok()) << rules.status();
  std::vector<std::string> order;
  for (const CompiledRule& each : *rules) {
    order.push_back(each.file() + ":" + each.name());
  }
  EXPECT_THAT(order, ElementsAre("z:d1", "a:d2", "z:a1", "z:a2", "a:a3"));
}

TEST(CompileTest, TellsBothPlacesOfANameUsedTwice) {
  const std::string good =
      "rule {\n   name: 'x' effect: DENY everyone: true program: '*' }\n";
  const std::vector<PolicyText> texts = {{"first", good},
                                         {"second", "\n" + good}};
  const absl::Status status = Compile(texts, FakeResolver()).status();
  EXPECT_EQ(ReasonOf(status), v1::REASON_FILE_INVALID);
  EXPECT_THAT(std::string(status.message()),
              StartsWith("second:3:4: rule 'x' has its name from the one at "
                         "first:2:4"));
  EXPECT_THAT(std::string(CompileOne(good + good).status().message()),
              StartsWith("p:4:4: rule 'x' has its name from the one at "
                         "p:2:4"));
}

TEST(CompileTest, StopsAtTheFirstBrokenFile) {
  const std::vector<PolicyText> texts = {
      {"good", ""}, {"bad", "rule {"}, {"worse", "\xff"}};
  const absl::Status status = Compile(texts, FakeResolver()).status();
  EXPECT_THAT(std::string(status.message()), StartsWith("bad:1:7: "));
}

struct BadRule {
  std::string name;
  std::string text;
  std::string error;  // its beginning
};

const BadRule kBadRules[] = {
    {"NoName", "# one\n  rule { effect: DENY everyone: true program: '*' }",
     "p:2:3: a rule needs a name"},
    {"EmptyName", "rule {\n name: '' effect: DENY }",
     "p:2:2: a rule needs a name"},
    {"NoEffect", " rule { name: 'r' everyone: true program: '*' }",
     "p:1:2: rule 'r' needs an effect"},
    {"EffectUnspecified", "rule { name: 'r'\n effect: EFFECT_UNSPECIFIED }",
     "p:2:2: rule 'r' needs an effect"},
    {"ForNobody", "rule {\n  name: 'r' effect: DENY program: '*' }",
     "p:2:3: rule 'r' is for nobody"},
    {"ForNobodyAloud",
     "rule { name: 'r' effect: DENY everyone: false program: '*' }",
     "p:1:8: rule 'r' is for nobody"},
    {"AboutNothing", "rule {\n  name: 'r' effect: DENY everyone: true }",
     "p:2:3: rule 'r' is about nothing"},
    {"EveryoneBesideUsers",
     "rule { name: 'r' effect: DENY user: '1'\n  everyone: true "
     "program: '*' }",
     "p:2:3: rule 'r' is for everyone"},
    {"EveryoneBesideGroups",
     "rule { name: 'r' effect: DENY\n everyone: true group: '1' "
     "program: '*' }",
     "p:2:2: rule 'r' is for everyone"},
    {"UnknownUser",
     "rule { name: 'r' effect: DENY user: ['alice',\n   'bob'] "
     "program: '*' }",
     "p:2:4: rule 'r' names user 'bob', which does not exist"},
    {"UnknownGroup",
     "rule { name: 'r' effect: DENY group: 'operators'\n"
     "  group: 'alice' program: '*' }",
     "p:2:3: rule 'r' names group 'alice', which does not exist"},
    {"EmptyUser", "rule { name: 'r' effect: DENY user: '' program: '*' }",
     "p:1:31: rule 'r' names user '', which does not exist"},
    {"ResolverDown",
     "rule { name: 'r' effect: DENY user: 'broken' program: '*' }",
     "p:1:31: rule 'r' names user 'broken', which could not be "
     "looked up: directory is down"},
    // (uid_t)-1 is the kernel's "no such user".
    {"UserMinusOne", "rule { name: 'r' effect: DENY user: '4294967295' }",
     "p:1:31: rule 'r' names user 4294967295: no number of a user"},
    {"UserTooLarge", "rule { name: 'r' effect: DENY user: '4294967296' }",
     "p:1:31: rule 'r' names user 4294967296: no number of a user"},
    {"GroupTooLarge",
     "rule { name: 'r' effect: DENY group: '99999999999999999999' }",
     "p:1:31: rule 'r' names group 99999999999999999999: no number "
     "of a group"},
    {"UserWithASign", "rule { name: 'r' effect: DENY user: '-1' program: '*' }",
     "p:1:31: rule 'r' names user '-1', which does not exist"},
    {"UserWithASpace",
     "rule { name: 'r' effect: DENY user: ' 1' program: '*' }",
     "p:1:31: rule 'r' names user ' 1', which does not exist"},
    {"ProgramWithUpperCase",
     "rule { name: 'r' effect: DENY everyone: true\n"
     " program: ['ok', 'Sampler'] }",
     "p:2:18: rule 'r' names program 'Sampler'"},
    {"ProgramEmpty",
     "rule { name: 'r' effect: DENY everyone: true\n"
     " program: '' }",
     "p:2:2: rule 'r' names program ''"},
    {"ProgramWithABracket",
     "rule { name: 'r' effect: DENY everyone: true\n"
     " program: 'a[bc]' }",
     "p:2:2: rule 'r' names program 'a[bc]'"},
    {"TagWithAStar",
     "rule { name: 'r' effect: DENY everyone: true\n"
     " tag: ['net', 'n*'] }",
     "p:2:15: rule 'r' names tag 'n*'"},
    {"TagThatBeginsWithADigit",
     "rule { name: 'r' effect: DENY everyone: true\n tag: '1st' }",
     "p:2:2: rule 'r' names tag '1st'"},
    {"UnitWithoutAType",
     "rule { name: 'r' effect: DENY\n unit: 'nginx' program: '*' }",
     "p:2:2: rule 'r' names unit 'nginx': no unit can be called so"},
    {"UnitThatIsASlice",
     "rule { name: 'r' effect: DENY\n unit: 'batch.slice' program: '*' }",
     "p:2:2: rule 'r' names unit 'batch.slice': that is a slice"},
    {"UnitWithASlash",
     "rule { name: 'r' effect: DENY\n unit: 'a/b.service' program: '*' }",
     "p:2:2: rule 'r' names unit 'a/b.service'"},
    {"UnitThatIsATemplate",
     "rule { name: 'r' effect: DENY\n unit: 'getty@.service' program: '*' }",
     "p:2:2: rule 'r' names unit 'getty@.service'"},
    {"UnitEmpty",
     "rule { name: 'r' effect: DENY\n unit: ['a.service', ''] program: '*' }",
     "p:2:22: rule 'r' names unit ''"},
    {"SliceThatIsAService",
     "rule { name: 'r' effect: DENY\n slice: 'a.service' program: '*' }",
     "p:2:2: rule 'r' names slice 'a.service'"},
    {"CgroupNotAbsolute",
     "rule { name: 'r' effect: DENY\n cgroup: 'system.slice' program: '*' }",
     "p:2:2: rule 'r' names cgroup 'system.slice'"},
    {"CgroupWithDots",
     "rule { name: 'r' effect: DENY\n cgroup: '/a/../b' program: '*' }",
     "p:2:2: rule 'r' names cgroup '/a/../b'"},
    {"CgroupWithASlashAtItsEnd",
     "rule { name: 'r' effect: DENY\n cgroup: '/a/' program: '*' }",
     "p:2:2: rule 'r' names cgroup '/a/'"},
    {"CgroupRoot", "rule { name: 'r' effect: DENY\n cgroup: '/' program: '*' }",
     "p:2:2: rule 'r' names cgroup '/': everything is in it"},
    {"LabelEmpty", "rule { name: 'r' effect: DENY\n label: '' program: '*' }",
     "p:2:2: rule 'r' names an empty label"},
    {"ExecutableEmpty",
     "rule { name: 'r' effect: DENY\n executable {} program: '*' }",
     "p:2:2: rule 'r' names an executable and says nothing of it"},
    {"ExecutableRelative",
     "rule { name: 'r' effect: DENY\n executable { path: 'bin/x' } "
     "program: '*' }",
     "p:2:2: rule 'r' names executable 'bin/x'"},
    {"ExecutableDigestInUpperCase",
     "rule { name: 'r' effect: DENY\n executable { sha256: '" +
         std::string(64, 'A') + "' } program: '*' }",
     "p:2:2: rule 'r' names sha256 'AAA"},
    {"ExecutableFsverityWithoutItsHash",
     "rule { name: 'r' effect: DENY\n executable { path: '/x' }\n"
     " executable { fsverity: '" +
         std::string(64, 'a') + "' } program: '*' }",
     "p:3:2: rule 'r' names fsverity 'aaa"},
    {"BurstOfNothing",
     "rule { name: 'r' effect: ALLOW everyone: true program: '*'\n"
     "  quota { grants: 1 total { acquires_burst: 9 } } }",
     "p:2:3: rule 'r' has acquires_burst without acquires_per_second"},
    {"AllowThatObserves",
     "rule { name: 'r' effect: ALLOW everyone: true program: '*'\n"
     "  quota { grants: 1 } observe: true }",
     "p:2:23: rule 'r' is ALLOW: only a DENY can observe"},
    {"ProgramBeginsWithADigit",
     "rule { name: 'r' effect: DENY everyone: true\n"
     " program: '1a' }",
     "p:2:2: rule 'r' names program '1a'"},
    {"ProgramTooLong",
     "rule { name: 'r' effect: DENY everyone: true program: '" +
         std::string(64, 'a') + "' }",
     "p:1:46: rule 'r' names program 'aaa"},
    {"QuotaOnDeny",
     "rule { name: 'r' effect: DENY everyone: true program: '*'\n"
     "  quota { grants: 1 } }",
     "p:2:3: rule 'r' is DENY and takes no quota"},
    {"EmptyQuotaOnDeny",
     "rule { name: 'r' effect: DENY everyone: true program: '*'\n"
     "  quota { } }",
     "p:2:3: rule 'r' is DENY and takes no quota"},
    {"TrustOnDeny",
     "rule { name: 'r' effect: DENY everyone: true program: '*'\n"
     "  trusted: true }",
     "p:2:3: rule 'r' is DENY and trusts nobody"},
    {"AllowWithoutQuota",
     "\n rule { name: 'r' effect: ALLOW everyone: true program: "
     "'*' }",
     "p:2:2: rule 'r' is ALLOW and needs a quota"},
    {"AllowWithQuotaZero",
     "rule { name: 'r' effect: ALLOW everyone: true program: '*'\n"
     "  quota { grants: 0 } }",
     "p:2:3: rule 'r' is ALLOW and needs a quota"},
};

TEST(CompileTest, RefusesBadRulesAtTheirPlaces) {
  for (const BadRule& bad : kBadRules) {
    SCOPED_TRACE(bad.name);
    const absl::Status status = CompileOne(bad.text).status();
    EXPECT_EQ(ReasonOf(status), v1::REASON_FILE_INVALID);
    EXPECT_THAT(std::string(status.message()), StartsWith(bad.error));
  }
}

TEST(CompileTest, KeepsWhatElseMustHold) {
  const std::string digest(64, 'a');
  const auto rules = CompileOne(
      "rule { name: 'r' effect: DENY observe: true\n"
      "  unit: ['nginx.service', 'getty@*.service', 'run-*'] slice: 'a-?.slice'"
      "  cgroup: '/system.slice' label: 'unconfined'\n"
      "  executable { path: '/usr/bin/x' sha256: '" +
      digest + "' fsverity: 'sha256:" + digest +
      "' }\n  program: ['net_*', '?x'] tag: 'io' }");
  ASSERT_TRUE(rules.ok()) << rules.status();
  const CompiledRule& rule = rules->front();
  EXPECT_TRUE(rule.observe());
  EXPECT_THAT(rule.unit(),
              ElementsAre("nginx.service", "getty@*.service", "run-*"));
  EXPECT_THAT(rule.slice(), ElementsAre("a-?.slice"));
  EXPECT_THAT(rule.cgroup(), ElementsAre("/system.slice"));
  EXPECT_THAT(rule.label(), ElementsAre("unconfined"));
  ASSERT_EQ(rule.executable_size(), 1);
  EXPECT_EQ(rule.executable(0).path(), "/usr/bin/x");
  EXPECT_EQ(rule.executable(0).sha256(), digest);
  EXPECT_EQ(rule.executable(0).fsverity(), "sha256:" + digest);
  EXPECT_THAT(rule.program(), ElementsAre("net_*", "?x"));
  EXPECT_THAT(rule.tag(), ElementsAre("io"));
}

TEST(CompileTest, TakesTheLongestProgramName) {
  EXPECT_TRUE(CompileOne("rule { name: 'r' effect: DENY everyone: true "
                         "program: '" +
                         std::string(63, 'a') + "' }")
                  .ok());
}

}  // namespace
}  // namespace bpfgrant::policy
