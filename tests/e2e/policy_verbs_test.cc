// The verbs about the policy: explain of live and made-up processes, the table,
// suggestions, and a reload that enforces.

#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/e2e/bpfgrantctl_fixture.h"

namespace bpfgrant::test {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;

// kPolicy, and a rule about a unit.
class PolicyVerbsTest : public BpfgrantctlTest {
 protected:
  void SetUp() override {
    BpfgrantctlTest::SetUp();
    if (IsSkipped()) return;
    daemon().WritePolicy(
        "rule { name: 'web' effect: ALLOW program: 'packet_*'\n"
        "  unit: 'web@*.service' label: 'l' executable { path: '/bin/web' }\n"
        "  quota { grants: 1 } }\n",
        "web.policy");
    ASSERT_TRUE(daemon().Reload().ok());
  }
};

TEST_F(PolicyVerbsTest, ExplainListsEachRuleAndWhy) {
  const Words somebody = {"explain", "packet_sampler", "--uid",
                          "7",       "--gid",          "7"};
  Words near = somebody;
  near.insert(near.end(),
              {"--unit", "web@1.service", "--executable", "/bin/web"});
  const Outcome no = Root(near);
  EXPECT_EQ(no.exit_code, kRefused) << no.Describe();
  EXPECT_THAT(
      LinesOf(no.output),
      AllOf(Contains(MatchesRegex(
                "root +.*test.policy:[0-9]+ +allow +no +its user is 7.*")),
            Contains(MatchesRegex("web +.*web.policy:1 +allow +no +it has no "
                                  "label"))));
  Words all = near;
  all.insert(all.end(), {"--label", "l"});
  const Outcome yes = Root(all);
  EXPECT_TRUE(yes.ok()) << yes.Describe();
  EXPECT_THAT(yes.output, HasSubstr("rule 'web'"));
  all[all.size() - 1] = "m";
  EXPECT_EQ(Root(all).exit_code, kRefused);
  // What is not said of the executable is not known.
  Words unsaid = somebody;
  unsaid.insert(unsaid.end(),
                {"--cgroup", "/x.slice/web@1.service/y", "--label", "l"});
  const Outcome unknown = Root(unsaid);
  EXPECT_EQ(unknown.exit_code, kRefused) << unknown.Describe();
  EXPECT_THAT(unknown.output, HasSubstr("its executable is not known"));
}

TEST_F(PolicyVerbsTest, ExplainTakesALiveProcess) {
  const Outcome root =
      Root({"explain", "packet_sampler", "--pid", absl::StrCat(getpid())});
  EXPECT_TRUE(root.ok()) << root.Describe();
  EXPECT_THAT(root.output, HasSubstr("rule 'root'"));
  const Outcome none = Root({"explain", "packet_sampler", "--pid", "4194304"});
  EXPECT_EQ(none.exit_code, kRefused) << none.Describe();
  EXPECT_THAT(none.errors, EndsWith("(invalid-argument)\n"));
  const Outcome nobody = Nobody({"explain", "packet_sampler", "--pid", "1"});
  EXPECT_THAT(nobody.errors, EndsWith("(not-administrator)\n"));
}

TEST_F(PolicyVerbsTest, TheTableHasAllProgramsByAllUsers) {
  const Outcome table = Root({"explain", "--matrix"});
  EXPECT_TRUE(table.ok()) << table.Describe();
  EXPECT_THAT(
      LinesOf(table.output),
      AllOf(Contains(MatchesRegex(
                "user 0 \\(root\\) +reuseport_steer +allow +root +-")),
            Contains(
                MatchesRegex("user 65534 \\(nobody\\) +packet_sampler +allow +"
                             "sampler-for-nobody +-")),
            Contains(
                MatchesRegex("user 65534 \\(nobody\\) +reuseport_steer +deny +"
                             "no-steering +-")),
            Contains(MatchesRegex("anybody else +packet_sampler +allow +web +"
                                  "unit web@\\*.service, label l, executable "
                                  "/bin/web")),
            Contains(MatchesRegex("anybody else +packet_sampler +"
                                  "deny, by default +- +-"))));
  const Outcome json = Root({"explain", "--matrix", "--json"});
  EXPECT_GE(FromJson<v1::MatrixReply>(json.output).cell_size(), 7);
  EXPECT_EQ(Nobody({"explain", "--matrix"}).exit_code, kRefused);
}

// What is suggested, put into the policy as it is, allows what was denied and
// nothing else.
TEST_F(PolicyVerbsTest, ASuggestionAllowsWhatWasDeniedAndNoMore) {
  EXPECT_EQ(Root({"suggest"}).output, "# There is nothing to suggest.\n");
  daemon().WritePolicy("");
  ASSERT_TRUE(daemon().Reload().ok());
  {
    Connection connection = Connect();
    EXPECT_FALSE(connection
                     .Acquire({.program = "packet_sampler",
                               .interface = "packet_sampler/1"})
                     .ok());
  }
  const Outcome suggested = Root({"suggest"});
  EXPECT_TRUE(suggested.ok()) << suggested.Describe();
  EXPECT_THAT(suggested.output,
              AllOf(HasSubstr("asked for 'packet_sampler' 1 time"),
                    HasSubstr("user: \"0\""), Not(HasSubstr("everyone"))));
  daemon().WritePolicy(suggested.output, "suggested.policy");
  const absl::Status reloaded = daemon().Reload();
  ASSERT_TRUE(reloaded.ok()) << reloaded;
  {
    Connection connection = Connect();
    EXPECT_TRUE(Acquire(connection).id() > 0);
    EXPECT_FALSE(connection
                     .Acquire({.program = "reuseport_steer",
                               .interface = "reuseport_steer/1"})
                     .ok());
  }
  EXPECT_EQ(Nobody({"explain", "packet_sampler"}).exit_code, kRefused);
  EXPECT_EQ(Nobody({"suggest"}).exit_code, kRefused);
  const auto denials = Root({"suggest", "--json"});
  EXPECT_THAT(denials.output, HasSubstr("\"program\": \"packet_sampler\""));
}

TEST_F(PolicyVerbsTest, ReloadTellsWhatGoesOnAndEndsItIfAsked) {
  Connection connection = Connect();
  const Grant grant = Acquire(connection);
  daemon().WritePolicy("");
  const Outcome told = Root({"reload"});
  EXPECT_TRUE(told.ok()) << told.Describe();
  EXPECT_THAT(told.output, AllOf(HasSubstr("revoked:      0 grants"),
                                 HasSubstr("Live grants"),
                                 HasSubstr("reload --enforce ends them")));
  const Outcome enforced = Root({"reload", "--enforce"});
  EXPECT_TRUE(enforced.ok()) << enforced.Describe();
  EXPECT_THAT(enforced.output, AllOf(HasSubstr("revoked:      1 grant"),
                                     Not(HasSubstr("Live grants"))));
}

}  // namespace
}  // namespace bpfgrant::test
