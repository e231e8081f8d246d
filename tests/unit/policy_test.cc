#include "policy/policy.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "bpfgrant/daemon/loader.pb.h"
#include "bpfgrant/v1/messages.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/compile_text.h"

namespace bpfgrant::policy {
namespace {

using ::testing::IsEmpty;

using daemon::CompiledRule;

Rules RulesOf(const std::string& text) {
  const auto compiled = CompileOne(text);
  EXPECT_TRUE(compiled.ok()) << compiled.status();
  return compiled.ok() ? Rules(*compiled) : Rules();
}

std::string ReadShipped(const std::string& file) {
  std::ifstream stream(std::string(POLICY_FOLDER "/") + file);
  EXPECT_TRUE(stream.good()) << file;
  return {std::istreambuf_iterator<char>(stream), {}};
}

// --- Deciding ----------------------------------------------------------------

constexpr char kSite[] =
    "rule { name: 'staff' effect: ALLOW group: '50' program: 'sampler'\n"
    "  quota { grants: 8 } }\n"
    "rule { name: 'alice' effect: ALLOW user: 'alice' program: '*'\n"
    "  quota { grants: 2 } trusted: true }\n"
    "rule { name: 'no-steering' effect: DENY group: '60'\n"
    "  program: ['steer', 'mirror'] }\n";

TEST(DecideTest, WithoutRulesEverythingIsDenied) {
  const v1::Verdict verdict = Rules().Decide({0, 0, {}}, "sampler");
  EXPECT_FALSE(verdict.allowed());
  EXPECT_EQ(verdict.reason(), v1::REASON_DENIED_BY_DEFAULT);
  EXPECT_EQ(verdict.rule(), "");
  EXPECT_EQ(verdict.line(), 0);
  EXPECT_EQ(DescribeVerdict(verdict), "no rule allows it");
}

TEST(DecideTest, RootIsAUserLikeAnyOther) {
  EXPECT_FALSE(RulesOf(kSite).Decide({0, 0, {}}, "sampler").allowed());
}

TEST(DecideTest, AllowsWithQuotaAndTrustOfTheRule) {
  const v1::Verdict verdict =
      RulesOf(kSite).Decide({1000, 1000, {}}, "sampler");
  EXPECT_TRUE(verdict.allowed());
  EXPECT_EQ(verdict.reason(), v1::REASON_UNSPECIFIED);
  EXPECT_EQ(verdict.rule(), "alice");
  EXPECT_EQ(verdict.file(), "p");
  EXPECT_EQ(verdict.line(), 3);
  EXPECT_EQ(verdict.quota(), 2);
  EXPECT_TRUE(verdict.trusted());
  EXPECT_EQ(DescribeVerdict(verdict), "rule 'alice' (p:3)");
}

TEST(DecideTest, CountsPrimaryAndSupplementaryGroups) {
  const Rules rules = RulesOf(kSite);
  EXPECT_TRUE(rules.Decide({7, 50, {}}, "sampler").allowed());
  EXPECT_TRUE(rules.Decide({7, 7, {8, 50}}, "sampler").allowed());
  EXPECT_FALSE(rules.Decide({7, 7, {8}}, "sampler").allowed());
  // A uid is no gid.
  EXPECT_FALSE(rules.Decide({50, 7, {}}, "sampler").allowed());
  EXPECT_FALSE(rules.Decide({7, 1000, {1000}}, "sampler").allowed());
}

TEST(DecideTest, IsAboutThatProgramOnly) {
  const Rules rules = RulesOf(kSite);
  const Subject staff{7, 50, {}};
  EXPECT_FALSE(rules.Decide(staff, "sample").allowed());
  EXPECT_FALSE(rules.Decide(staff, "sampler2").allowed());
  EXPECT_FALSE(rules.Decide(staff, "").allowed());
  EXPECT_FALSE(rules.Decide(staff, "*").allowed());
}

TEST(DecideTest, TheFirstAllowDecides) {
  EXPECT_EQ(RulesOf(kSite).Decide({1000, 50, {}}, "sampler").rule(), "staff");
}

TEST(DecideTest, DenyOverridesAnAllowBeforeIt) {
  const v1::Verdict verdict = RulesOf(kSite).Decide({1000, 7, {60}}, "mirror");
  EXPECT_FALSE(verdict.allowed());
  EXPECT_EQ(verdict.reason(), v1::REASON_DENIED_BY_RULE);
  EXPECT_EQ(verdict.rule(), "no-steering");
  EXPECT_EQ(verdict.line(), 5);
  EXPECT_EQ(verdict.quota(), 0);
  EXPECT_FALSE(verdict.trusted());
  EXPECT_TRUE(RulesOf(kSite).Decide({1000, 7, {60}}, "sampler").allowed());
}

TEST(DecideTest, TheFirstDenyDecides) {
  CompiledRule allow;
  allow.set_name("allow");
  allow.set_everyone(true);
  allow.add_program("*");
  allow.set_quota(1);
  CompiledRule first = allow;
  first.set_name("first");
  first.set_deny(true);
  CompiledRule second = first;
  second.set_name("second");
  const std::vector<CompiledRule> rules = {allow, first, second};
  EXPECT_EQ(Rules(rules).Decide({7, 7, {}}, "steer").rule(), "first");
}

TEST(DecideTest, DenyOverridesHoweverTheRulesAreSorted) {
  std::vector<CompiledRule> rules = CompileOne(kSite).value();
  std::reverse(rules.begin(), rules.end());
  ASSERT_TRUE(rules.back().deny());
  EXPECT_FALSE(Rules(rules).Decide({1000, 60, {}}, "steer").allowed());
}

// --- What holds of all rules -------------------------------------------------

// A world so small that random rules meet random subjects often.
class RandomWorld {
 public:
  explicit RandomWorld(unsigned seed) : random_(seed) {}

  CompiledRule Rule(bool deny) {
    CompiledRule rule;
    rule.set_name("r" + std::to_string(++rules_));
    rule.set_deny(deny);
    rule.set_everyone(Below(8) == 0);
    for (int i = Below(3); i > 0; --i) rule.add_uid(Below(4));
    for (int i = Below(3); i > 0; --i) rule.add_gid(Below(4));
    for (int i = 1 + Below(2); i > 0; --i) rule.add_program(Program());
    if (Below(8) == 0) rule.add_program("*");
    if (!deny) rule.set_quota(1 + Below(9));
    return rule;
  }
  std::vector<CompiledRule> RuleSet() {
    std::vector<CompiledRule> rules;
    for (int i = Below(8); i > 0; --i) rules.push_back(Rule(Below(3) == 0));
    return rules;
  }
  Subject Someone() {
    Subject subject{Below(4), Below(4), {}};
    for (int i = Below(3); i > 0; --i) subject.groups.push_back(Below(4));
    return subject;
  }
  std::string Program() { return std::string(1, "abc"[Below(3)]); }
  unsigned Below(unsigned end) { return random_() % end; }
  std::mt19937& random() { return random_; }

 private:
  std::mt19937 random_;
  int rules_ = 0;
};

constexpr unsigned kSeeds = 20'000;

TEST(PropertyTest, AnotherDenyNeverAllows) {
  int allowed = 0;
  int withdrawn = 0;
  for (unsigned seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(seed);
    RandomWorld world(seed);
    std::vector<CompiledRule> rules = world.RuleSet();
    const Subject subject = world.Someone();
    const std::string program = world.Program();
    const v1::Verdict before = Rules(rules).Decide(subject, program);
    rules.insert(rules.begin() + world.Below(rules.size() + 1),
                 world.Rule(/*deny=*/true));
    const v1::Verdict after = Rules(rules).Decide(subject, program);
    ASSERT_TRUE(before.allowed() || !after.allowed());
    // What stays allowed stays allowed by the same rule.
    if (after.allowed()) {
      ASSERT_EQ(after.rule(), before.rule());
    }
    allowed += before.allowed();
    withdrawn += before.allowed() && !after.allowed();
  }
  // The world must not be one where the above holds of nothing.
  EXPECT_GT(allowed, 1000);
  EXPECT_GT(withdrawn, 100);
}

TEST(PropertyTest, TheOrderOfRulesNeverChangesWhetherItIsAllowed) {
  for (unsigned seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(seed);
    RandomWorld world(seed);
    std::vector<CompiledRule> rules = world.RuleSet();
    const Subject subject = world.Someone();
    const std::string program = world.Program();
    const bool before = Rules(rules).Decide(subject, program).allowed();
    std::shuffle(rules.begin(), rules.end(), world.random());
    ASSERT_EQ(Rules(rules).Decide(subject, program).allowed(), before);
  }
}

TEST(PropertyTest, AVerdictIsConsistent) {
  for (unsigned seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(seed);
    RandomWorld world(seed);
    const v1::Verdict verdict =
        Rules(world.RuleSet()).Decide(world.Someone(), world.Program());
    ASSERT_EQ(verdict.allowed(), verdict.reason() == v1::REASON_UNSPECIFIED);
    ASSERT_EQ(verdict.allowed(), verdict.quota() > 0);
    ASSERT_EQ(verdict.rule().empty(),
              verdict.reason() == v1::REASON_DENIED_BY_DEFAULT);
  }
}

// --- The policies that are shipped -------------------------------------------

TEST(ShippedTest, TheDefaultGrantsNothing) {
  const auto rules = CompileOne(ReadShipped("default/10-default.policy"));
  ASSERT_TRUE(rules.ok()) << rules.status();
  EXPECT_THAT(*rules, IsEmpty());
}

TEST(ShippedTest, TheExamplesInTheDefaultCompile) {
  // The rules stand indented in the comment.
  std::string text;
  bool in_rule = false;
  std::ifstream stream(POLICY_FOLDER "/default/10-default.policy");
  for (std::string line; std::getline(stream, line);) {
    if (line == "#   rule {") in_rule = true;
    if (in_rule) text += line.substr(1) + "\n";
    if (line == "#   }") in_rule = false;
  }
  text.replace(text.find("\"guests\""), 8, "\"60\"");
  text.replace(text.find("\"www-data\""), 10, "\"33\"");
  const auto rules = CompileOne(text);
  ASSERT_TRUE(rules.ok()) << rules.status() << "\n" << text;
  EXPECT_EQ(rules->size(), 3);
}

TEST(ShippedTest, TheDemoLetsNobodySampleAndNotSteer) {
  const Rules rules = RulesOf(ReadShipped("demo/demo.policy"));
  const Subject nobody{65534, 65534, {}};
  const v1::Verdict sampler = rules.Decide(nobody, "packet_sampler");
  EXPECT_TRUE(sampler.allowed());
  EXPECT_EQ(sampler.rule(), "sampler-for-nobody");
  EXPECT_EQ(sampler.quota(), 64);
  EXPECT_FALSE(sampler.trusted());
  const v1::Verdict steer = rules.Decide(nobody, "reuseport_steer");
  EXPECT_EQ(steer.reason(), v1::REASON_DENIED_BY_RULE);
  EXPECT_EQ(steer.rule(), "steering-is-for-proxies");
  EXPECT_GT(steer.line(), 0);
}

}  // namespace
}  // namespace bpfgrant::policy
