// One rule and one subject: what matches, and what is said where it does not.

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "policy/policy.h"
#include "tests/unit/compile_text.h"

namespace bpfgrant::policy {
namespace {

using ::testing::HasSubstr;

const std::string kDigest(64, 'a');

// A rule that says `what` beside its name, about all programs.
Rules RulesThat(const std::string& effect, const std::string& what) {
  const auto compiled = CompileOne(
      "rule { name: 'r' effect: " + effect + " program: '*' " + what +
      (effect == "ALLOW" ? " quota { grants: 1 }" : "") + " }");
  EXPECT_TRUE(compiled.ok()) << compiled.status();
  return compiled.ok() ? Rules(*compiled) : Rules();
}

Subject Nginx() {
  Subject subject{33, 33, {}};
  subject.location = Locate("/system.slice/nginx.service/worker");
  subject.label = "httpd (enforce)";
  subject.executable.path = "/usr/sbin/nginx";
  subject.executable.sha256 = kDigest;
  subject.executable.fsverity = "";
  return subject;
}

Subject Unknown() { return Subject{33, 33, {}}; }

bool Allows(const Rules& rules, const Subject& subject) {
  return rules.Decide(subject, "sampler").allowed();
}

struct Kind {
  std::string matching;
  std::string other;
  std::string told;  // of Nginx by `other`
};

const Kind kKinds[] = {
    {"user: '33'", "user: '34'", "its user is 33, its group 33"},
    {"group: '33'", "group: '34'", "its user is 33, its group 33"},
    {"unit: 'nginx.service'", "unit: 'worker.service'",
     "its unit is 'nginx.service'"},
    {"unit: 'ngin*'", "unit: 'n?.service'", "its unit is 'nginx.service'"},
    {"slice: 'system.slice'", "slice: 'user.slice'",
     "its slices are system.slice"},
    {"cgroup: '/system.slice'", "cgroup: '/system'",
     "its cgroup is '/system.slice/nginx.service/worker'"},
    {"label: 'httpd*'", "label: 'httpd'", "its label is 'httpd (enforce)'"},
    {"executable { path: '/usr/sbin/nginx' sha256: '" + kDigest + "' }",
     "executable { path: '/usr/sbin/nginx' sha256: '" + std::string(64, 'b') +
         "' }",
     "its executable is /usr/sbin/nginx, sha256 " + kDigest},
    {"executable { sha256: '" + kDigest + "' }",
     "executable { fsverity: 'sha256:" + kDigest + "' }",
     "no fs-verity digest"},
};

TEST(RuleTest, MatchesEachKindAndSaysWhyNot) {
  for (const Kind& kind : kKinds) {
    SCOPED_TRACE(kind.other);
    EXPECT_TRUE(Allows(RulesThat("ALLOW", kind.matching), Nginx()));
    const Rules other = RulesThat("ALLOW", kind.other);
    EXPECT_FALSE(Allows(other, Nginx()));
    const auto consulted = other.Consult(Nginx(), "sampler");
    ASSERT_EQ(consulted.size(), 1u);
    EXPECT_FALSE(consulted.front().matches());
    EXPECT_THAT(consulted.front().why(), HasSubstr(kind.told));
  }
}

TEST(RuleTest, EveryKindThatIsNamedMustMatch) {
  for (const Kind& kind : kKinds) {
    SCOPED_TRACE(kind.other);
    std::string all;
    for (const Kind& each : kKinds) {
      // Users and groups are one kind.
      if (each.matching.starts_with("group") || &each == &kind) continue;
      // So are two units.
      if (each.matching.substr(0, 5) == kind.matching.substr(0, 5)) continue;
      all += each.matching + " ";
    }
    if (kind.matching.starts_with("user") ||
        kind.matching.starts_with("group")) {
      all.erase(0, all.find("unit"));
    }
    EXPECT_TRUE(Allows(RulesThat("ALLOW", all + kind.matching), Nginx()));
    EXPECT_FALSE(Allows(RulesThat("ALLOW", all + kind.other), Nginx()));
  }
}

TEST(RuleTest, OfOneKindAnyMayMatch) {
  EXPECT_TRUE(Allows(RulesThat("ALLOW", "user: '1' group: '33'"), Nginx()));
  EXPECT_TRUE(
      Allows(RulesThat("ALLOW", "unit: ['a.service', '*.service']"), Nginx()));
  EXPECT_TRUE(Allows(RulesThat("ALLOW",
                               "executable { path: '/x' } "
                               "executable { path: '/usr/sbin/nginx' }"),
                     Nginx()));
}

// What the kernel does not say is no reason to allow, nor to leave out a
// denial.
TEST(RuleTest, TheUnknownDecidesAgainstTheCaller) {
  for (const Kind& kind : kKinds) {
    if (kind.matching.starts_with("user") ||
        kind.matching.starts_with("group")) {
      continue;
    }
    SCOPED_TRACE(kind.matching);
    EXPECT_FALSE(Allows(RulesThat("ALLOW", kind.matching), Unknown()));
    const Rules deny = RulesThat("DENY", kind.matching);
    EXPECT_EQ(deny.Decide(Unknown(), "sampler").rule(), "r");
    const auto consulted = deny.Consult(Unknown(), "sampler");
    ASSERT_EQ(consulted.size(), 1u);
    EXPECT_TRUE(consulted.front().matches());
    EXPECT_THAT(consulted.front().why(), HasSubstr("not known"));
    // What is known to be another is not denied, whatever else is not known.
    EXPECT_EQ(RulesThat("DENY", "user: '34' " + kind.matching)
                  .Decide(Unknown(), "sampler")
                  .rule(),
              "");
  }
}

TEST(RuleTest, NoUnitAndNoLabelAreNoPattern) {
  Subject bare{33, 33, {}};
  bare.location = Locate("/");
  bare.label = "";
  EXPECT_FALSE(Allows(RulesThat("ALLOW", "unit: '*'"), bare));
  EXPECT_FALSE(Allows(RulesThat("ALLOW", "label: '*'"), bare));
  EXPECT_TRUE(RulesThat("DENY", "unit: '*'").Decide(bare, "x").rule().empty());
}

// --- Observing ---------------------------------------------------------------

constexpr char kAllow[] =
    "rule { name: 'all' effect: ALLOW everyone: true program: '*'\n"
    "  quota { grants: 1 } }\n";
constexpr char kObserve[] =
    "rule { name: 'try' effect: DENY observe: true user: '33'\n"
    "  program: 'samp*' }\n";

TEST(ObserveTest, AllowsAndSaysWhatItWouldDeny) {
  const Rules rules(CompileOne(std::string(kAllow) + kObserve).value());
  const v1::Verdict verdict = rules.Decide({33, 33, {}}, "sampler");
  EXPECT_TRUE(verdict.allowed());
  EXPECT_EQ(verdict.rule(), "all");
  EXPECT_EQ(verdict.observed_rule(), "try");
  EXPECT_EQ(verdict.observed_file(), "p");
  EXPECT_EQ(verdict.observed_line(), 3u);
  EXPECT_EQ(rules.Decide({34, 34, {}}, "sampler").observed_rule(), "");
  EXPECT_EQ(rules.Decide({33, 33, {}}, "tap").observed_rule(), "");
}

TEST(ObserveTest, WouldDenyNothingThatIsDenied) {
  const Rules rules(CompileOne(kObserve).value());
  const v1::Verdict verdict = rules.Decide({33, 33, {}}, "sampler");
  EXPECT_EQ(verdict.reason(), v1::REASON_DENIED_BY_DEFAULT);
  EXPECT_EQ(verdict.observed_rule(), "");
}

// --- The table ---------------------------------------------------------------

std::vector<std::string> Lines(const v1::MatrixReply& reply) {
  std::vector<std::string> lines;
  for (const v1::MatrixCell& cell : reply.cell()) {
    lines.push_back(cell.subject() + " " + cell.program() + " " +
                    (cell.verdict().allowed() ? "yes " : "no ") +
                    cell.verdict().rule() + " " + cell.condition());
  }
  return lines;
}

const std::string kSite =
    "rule { name: 'a' effect: ALLOW user: '1' program: 'x'\n"
    "  unit: 'u.service' slice: 's.slice' quota { grants: 1 } }\n"
    "rule { name: 'b' effect: ALLOW group: '2' program: '*'\n"
    "  quota { grants: 1 } }\n"
    "rule { name: 'c' effect: DENY everyone: true program: 'y'\n"
    "  label: 'bad' }\n";

TEST(MatrixTest, SaysWhatEachMayHaveAndWhen) {
  const Rules rules(CompileOne(kSite).value());
  const std::vector<std::string> programs = {"x", "y"};
  EXPECT_THAT(
      Lines(rules.Matrix(programs, 0, 1 << 20)),
      ::testing::ElementsAre(
          "user 1 x yes a unit u.service, slice s.slice", "user 1 x no  ",
          "user 1 y no c label bad", "user 1 y no  ", "group 2 x yes b ",
          "group 2 y no c label bad", "group 2 y yes b ", "anybody else x no  ",
          "anybody else y no c label bad", "anybody else y no  "));
}

TEST(MatrixTest, ComesInPages) {
  const Rules rules(CompileOne(kSite).value());
  const std::vector<std::string> programs = {"x", "y"};
  std::vector<std::string> lines;
  uint32_t after = 0;
  int pages = 0;
  do {
    const v1::MatrixReply page = rules.Matrix(programs, after, 1);
    for (std::string& line : Lines(page)) lines.push_back(std::move(line));
    after = page.next();
    ASSERT_LT(++pages, 100);
  } while (after != 0);
  EXPECT_EQ(pages, 6);
  EXPECT_EQ(lines, Lines(rules.Matrix(programs, 0, 1 << 20)));
}

}  // namespace
}  // namespace bpfgrant::policy
