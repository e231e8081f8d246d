// The policy engine against one so slow and plain that it can be seen to be
// right: random policies, random subjects, equal verdicts.

#include <algorithm>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/match.h"
#include "bpfgrant/daemon/loader.pb.h"
#include "gtest/gtest.h"
#include "policy/policy.h"

namespace bpfgrant::policy {
namespace {

using daemon::CompiledRule;

// --- The reference -----------------------------------------------------------

bool Glob(std::string_view pattern, std::string_view text) {
  if (pattern.empty()) return text.empty();
  if (pattern.front() == '*') {
    return Glob(pattern.substr(1), text) ||
           (!text.empty() && Glob(pattern, text.substr(1)));
  }
  return !text.empty() &&
         (pattern.front() == '?' || pattern.front() == text.front()) &&
         Glob(pattern.substr(1), text.substr(1));
}

template <typename Patterns>
bool AnyGlob(const Patterns& patterns, const std::string& text) {
  for (const std::string& pattern : patterns) {
    if (Glob(pattern, text)) return true;
  }
  return false;
}

// What a rule says of one kind; nullopt: that cannot be known.
using Holds = std::optional<bool>;

Holds User(const CompiledRule& rule, const Subject& subject) {
  if (rule.uid().empty() && rule.gid().empty()) return true;
  std::vector<uint32_t> groups(subject.groups.begin(), subject.groups.end());
  groups.push_back(subject.gid);
  for (const uint32_t uid : rule.uid()) {
    if (uid == subject.uid) return true;
  }
  for (const uint32_t wanted : rule.gid()) {
    for (const uint32_t group : groups) {
      if (wanted == group) return true;
    }
  }
  return false;
}

Holds Unit(const CompiledRule& rule, const Subject& subject) {
  if (rule.unit().empty()) return true;
  if (!subject.location) return std::nullopt;
  return !subject.location->unit.empty() &&
         AnyGlob(rule.unit(), subject.location->unit);
}

Holds Slice(const CompiledRule& rule, const Subject& subject) {
  if (rule.slice().empty()) return true;
  if (!subject.location) return std::nullopt;
  for (const std::string& slice : subject.location->slices) {
    if (AnyGlob(rule.slice(), slice)) return true;
  }
  return false;
}

Holds Cgroup(const CompiledRule& rule, const Subject& subject) {
  if (rule.cgroup().empty()) return true;
  if (!subject.location) return std::nullopt;
  for (const std::string& top : rule.cgroup()) {
    if (absl::StartsWith(subject.location->cgroup + "/", top + "/")) {
      return true;
    }
  }
  return false;
}

Holds Label(const CompiledRule& rule, const Subject& subject) {
  if (rule.label().empty()) return true;
  if (!subject.label) return std::nullopt;
  return !subject.label->empty() && AnyGlob(rule.label(), *subject.label);
}

Holds Executable(const CompiledRule& rule, const Subject& subject) {
  if (rule.executable().empty()) return true;
  bool unknown = false;
  for (const v1::Executable& wanted : rule.executable()) {
    const ExecutableFacts& facts = subject.executable;
    bool differs = false;
    bool missing = false;
    for (const auto& [said, fact] :
         {std::pair(wanted.path(), facts.path),
          std::pair(wanted.sha256(), facts.sha256),
          std::pair(wanted.fsverity(), facts.fsverity)}) {
      if (said.empty()) continue;
      if (!fact) missing = true;
      if (fact && *fact != said) differs = true;
    }
    if (!differs && !missing) return true;
    if (!differs) unknown = true;
  }
  return unknown ? Holds() : Holds(false);
}

bool Matches(const CompiledRule& rule, const Subject& subject,
             const std::string& program) {
  if (!AnyGlob(rule.program(), program)) return false;
  for (const auto& kind : {User, Unit, Slice, Cgroup, Label, Executable}) {
    const Holds holds = kind(rule, subject);
    if (!holds.value_or(rule.deny())) return false;
  }
  return true;
}

struct Outcome {
  bool allowed = false;
  std::string rule, observed;
  bool operator==(const Outcome&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Outcome& outcome) {
  return out << outcome.allowed << " by '" << outcome.rule << "', observed '"
             << outcome.observed << "'";
}

Outcome Reference(const std::vector<CompiledRule>& rules,
                  const Subject& subject, const std::string& program) {
  std::string observed;
  for (const CompiledRule& rule : rules) {
    if (!rule.deny() || !Matches(rule, subject, program)) continue;
    if (!rule.observe()) return {false, rule.name(), ""};
    if (observed.empty()) observed = rule.name();
  }
  for (const CompiledRule& rule : rules) {
    if (!rule.deny() && Matches(rule, subject, program)) {
      return {true, rule.name(), observed};
    }
  }
  return {};
}

// --- Random policies ---------------------------------------------------------

// A world so small that random rules meet random subjects often.
class World {
 public:
  explicit World(unsigned seed) : random_(seed) {}

  bool OneIn(unsigned n) { return random_() % n == 0; }
  unsigned Below(unsigned end) { return random_() % end; }
  std::string Pick(const std::vector<std::string>& from) {
    return from[Below(from.size())];
  }

  CompiledRule Rule() {
    CompiledRule rule;
    rule.set_name("r" + std::to_string(++rules_));
    rule.set_deny(OneIn(3));
    rule.set_observe(rule.deny() && OneIn(3));
    if (!rule.deny()) rule.set_quota(1);
    for (int i = Below(3); i > 0; --i) rule.add_uid(Below(3));
    for (int i = Below(2); i > 0; --i) rule.add_gid(Below(3));
    if (OneIn(3)) {
      rule.add_unit(Pick({"a.service", "*.service", "b*", "?.scope"}));
    }
    if (OneIn(4)) rule.add_slice(Pick({"s.slice", "s-?.slice", "u*"}));
    if (OneIn(4)) rule.add_cgroup(Pick({"/s.slice", "/s", "/u.slice/x"}));
    if (OneIn(4)) rule.add_label(Pick({"l", "l*", "*m"}));
    for (int i = OneIn(3) ? 1 + Below(2) : 0; i > 0; --i) {
      v1::Executable& executable = *rule.add_executable();
      if (OneIn(2)) executable.set_path(Pick({"/p", "/q"}));
      if (OneIn(2)) executable.set_sha256(Pick({"d", "e"}));
      if (OneIn(2) || executable.ByteSizeLong() == 0) {
        executable.set_fsverity(Pick({"v", "w"}));
      }
    }
    for (int i = 1 + Below(2); i > 0; --i) {
      rule.add_program(Pick({"*", "ab", "a*", "?b", "a*b*", "b"}));
    }
    return rule;
  }
  std::vector<CompiledRule> RuleSet() {
    std::vector<CompiledRule> rules;
    for (int i = Below(10); i > 0; --i) rules.push_back(Rule());
    return rules;
  }
  Subject Someone() {
    Subject subject{Below(3), Below(3), {}};
    for (int i = Below(3); i > 0; --i) subject.groups.push_back(Below(3));
    if (!OneIn(5)) {
      subject.location =
          Locate(Pick({"/s.slice/a.service", "/s.slice/s-t.slice/b.service/x",
                       "/u.slice/x", "/a.scope", "/", "/sx/a.service"}));
    }
    if (!OneIn(5)) subject.label = Pick({"", "l", "lm"});
    if (!OneIn(4)) subject.executable.path = Pick({"/p", "/q"});
    if (!OneIn(4)) subject.executable.sha256 = Pick({"d", "e"});
    if (!OneIn(4)) subject.executable.fsverity = Pick({"", "v", "w"});
    return subject;
  }
  std::string Program() { return Pick({"ab", "aab", "b", "abb"}); }
  std::mt19937& random() { return random_; }

 private:
  std::mt19937 random_;
  int rules_ = 0;
};

constexpr unsigned kSeeds = 20'000;

Outcome OutcomeOf(const v1::Verdict& verdict) {
  return {verdict.allowed(), verdict.rule(), verdict.observed_rule()};
}

TEST(ReferenceTest, VerdictsAreEqual) {
  int allowed = 0;
  int denied_by_rule = 0;
  int observed = 0;
  for (unsigned seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(seed);
    World world(seed);
    const std::vector<CompiledRule> rules = world.RuleSet();
    const Subject subject = world.Someone();
    const std::string program = world.Program();
    const Outcome expected = Reference(rules, subject, program);
    ASSERT_EQ(OutcomeOf(Rules(rules).Decide(subject, program)), expected);
    allowed += expected.allowed;
    denied_by_rule += !expected.allowed && !expected.rule.empty();
    observed += !expected.observed.empty();
  }
  // The world must not be one where all outcomes are the same.
  EXPECT_GT(allowed, 1000);
  EXPECT_GT(denied_by_rule, 1000);
  EXPECT_GT(observed, 100);
}

// What explain tells is what decides.
TEST(ReferenceTest, TheConsultedRulesAreThoseThatMatch) {
  for (unsigned seed = 0; seed < kSeeds / 5; ++seed) {
    SCOPED_TRACE(seed);
    World world(seed);
    const std::vector<CompiledRule> rules = world.RuleSet();
    const Subject subject = world.Someone();
    const std::string program = world.Program();
    std::vector<std::string> expected;
    for (const bool deny : {true, false}) {
      for (const CompiledRule& rule : rules) {
        if (rule.deny() == deny && Matches(rule, subject, program)) {
          expected.push_back(rule.name());
        }
      }
    }
    std::vector<std::string> told;
    for (const auto& rule : Rules(rules).Consult(subject, program)) {
      if (rule.matches()) told.push_back(rule.rule());
      // Only a denial can match in spite of something.
      ASSERT_TRUE(rule.matches() ? rule.deny() || rule.why().empty()
                                 : !rule.why().empty());
    }
    ASSERT_EQ(told, expected);
  }
}

TEST(ReferenceTest, OrderDecidesOnlyAmongAllows) {
  int other_allow = 0;
  for (unsigned seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(seed);
    World world(seed);
    std::vector<CompiledRule> rules = world.RuleSet();
    const Subject subject = world.Someone();
    const std::string program = world.Program();
    const Outcome before = OutcomeOf(Rules(rules).Decide(subject, program));
    std::shuffle(rules.begin(), rules.end(), world.random());
    const Outcome after = OutcomeOf(Rules(rules).Decide(subject, program));
    ASSERT_EQ(after.allowed, before.allowed);
    ASSERT_EQ(after.rule.empty(), before.rule.empty());
    ASSERT_EQ(after.observed.empty(), before.observed.empty());
    other_allow += after.allowed && after.rule != before.rule;
  }
  EXPECT_GT(other_allow, 50);
}

// A conditional entry of the table is what somebody has for whom it holds.
TEST(ReferenceTest, TheTableAgreesForWhoIsNothingElse) {
  for (unsigned seed = 0; seed < kSeeds / 10; ++seed) {
    SCOPED_TRACE(seed);
    World world(seed);
    const std::vector<CompiledRule> rules = world.RuleSet();
    // Somebody of whom everything is known and who meets no condition.
    Subject plain{7, 7, {}};
    plain.location = Locate("/");
    plain.label = "";
    plain.executable = {"/", "-", "", ""};
    const std::vector<std::string> programs = {world.Program()};
    std::optional<bool> told;
    const v1::MatrixReply table = Rules(rules).Matrix(programs, 0, 1 << 20);
    for (const v1::MatrixCell& cell : table.cell()) {
      if (cell.subject() == "anybody else" && cell.condition().empty()) {
        told = cell.verdict().allowed();
      }
    }
    ASSERT_TRUE(told.has_value());
    ASSERT_EQ(*told, Rules(rules).Decide(plain, programs[0]).allowed());
  }
}

}  // namespace
}  // namespace bpfgrant::policy
