// org.bpfgrant1 on a real bus, with a real polkitd: who may do what, and that
// it is the sockets' service.

#include <atomic>
#include <csignal>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "tests/e2e/bus_fixture.h"

namespace bpfgrant::test {
namespace {

using std::chrono::steady_clock;
using ::testing::HasSubstr;
using ::testing::Not;

// busctl prints the error's message and not its name.
void ExpectRefused(const Outcome& outcome, const std::string& why) {
  EXPECT_FALSE(outcome.ok()) << outcome.Describe();
  EXPECT_THAT(outcome.errors, HasSubstr(why));
}
void ExpectServed(const Outcome& outcome, const std::string& reply) {
  EXPECT_TRUE(outcome.ok()) << outcome.Describe();
  EXPECT_EQ(outcome.output, reply + "\n");
}

TEST_F(BusTest, IntrospectionNamesEverything) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const Outcome xml =
      bus().Busctl(kStranger, {"--system", "introspect", "--xml-interface",
                               "org.bpfgrant1", "/org/bpfgrant1"});
  ASSERT_TRUE(xml.ok()) << xml.Describe();
  for (const char* line :
       {R"(<method name="List">)", R"(<method name="Grants">)",
        R"(<method name="Check">)", R"(<method name="Explain">)",
        R"(<method name="Revoke">)", R"(<method name="Reload">)",
        R"(<method name="Status">)",
        R"(<arg type="s" name="why_not" direction="out"/>)",
        R"(<arg type="a{sv}" name="about" direction="in"/>)",
        R"(<signal name="GrantBegan">)", R"(<signal name="GrantEnded">)",
        R"(<property name="LastReload" type="s" access="read">)"}) {
    EXPECT_THAT(xml.output, HasSubstr(line));
  }
  // Nothing is without a name.
  EXPECT_THAT(xml.output, Not(HasSubstr(R"(" direction="in"/><arg type)")));
  EXPECT_THAT(xml.output, Not(HasSubstr(R"(<arg type="s" direction)")));
}

TEST_F(BusTest, PropertiesAreEverybodys) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const Grant grant = Acquire();
  const Outcome all = bus().Busctl(
      kStranger, {"--system", "--json=short", "call", "org.bpfgrant1",
                  "/org/bpfgrant1", "org.freedesktop.DBus.Properties", "GetAll",
                  "s", "org.bpfgrant1.Manager"});
  ASSERT_TRUE(all.ok()) << all.Describe();
  for (const char* part : {R"("ProgramCount":{"type":"u","data":1})",
                           R"("UnavailableCount":{"type":"u","data":0})",
                           R"("RuleCount":{"type":"u","data":2})",
                           R"("LastReload":{"type":"s","data":"ok"})",
                           R"("SessionCount":{"type":"u","data":1})",
                           R"("GrantCount":{"type":"u","data":1})"}) {
    EXPECT_THAT(all.output, HasSubstr(part));
  }
}

TEST_F(BusTest, EverybodySeesTheirOwn) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const Grant grant = Acquire();
  EXPECT_THAT(bus().Call(kOperator, "List", {"bs", "false", ""}).output,
              HasSubstr(R"("packet_sampler","packet_sampler/1")"));
  // What they may not have is not there.
  ExpectServed(bus().Call(kStranger, "List", {"bs", "false", ""}),
               R"({"type":"a(sssbbs)s","data":[[],""]})");
  ExpectServed(bus().Call(kOperator, "Grants", {"bt", "false", "0"}),
               R"({"type":"a(tsuusstbs)t","data":[[],0]})");
  EXPECT_THAT(bus().Call(0, "Grants", {"bt", "false", "0"}).output,
              HasSubstr(R"("packet_sampler",0,)"));
  const Outcome explained =
      bus().Call(kStranger, "Explain", {"sa{sv}", "packet_sampler", "0"});
  EXPECT_THAT(explained.output, HasSubstr(R"("data":[false,"no-stranger",)"));
  // Rules are about others, too.
  EXPECT_THAT(explained.output, HasSubstr(",[]]}"));
  const Outcome status = bus().Call(kStranger, "Status", {"b", "false"});
  EXPECT_THAT(status.output, HasSubstr("\"Version\""));
  EXPECT_THAT(status.output, Not(HasSubstr("Directories")));
}

TEST_F(BusTest, WithoutPolkitAllElseIsRoots) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const Grant grant = Acquire();
  const std::vector<std::pair<const char*, std::vector<std::string>>> calls = {
      {"List", {"bs", "true", ""}},
      {"Grants", {"bt", "true", "0"}},
      {"Check", {"s", "packet_sampler"}},
      {"Explain", {"sa{sv}", "packet_sampler", "1", "uid", "u", "0"}},
      {"Status", {"b", "true"}},
      {"Reload", {"b", "false"}},
      {"Revoke", {"ss", "program", "packet_sampler"}}};
  const auto begin = steady_clock::now();
  for (const auto& [method, words] : calls) {
    SCOPED_TRACE(method);
    ExpectRefused(bus().Call(kOperator, method, words),
                  "polkit cannot tell about org.bpfgrant1.");
  }
  EXPECT_EQ(Grants(), 1u);
  for (const auto& [method, words] : calls) {
    SCOPED_TRACE(method);
    const Outcome served = bus().Call(0, method, words);
    EXPECT_TRUE(served.ok()) << served.Describe();
  }
  EXPECT_EQ(Grants(), 0u);
  // No deadline was waited for (5 s each).
  EXPECT_LT(steady_clock::now() - begin, std::chrono::seconds(30));
}

TEST_F(BusTest, TheAdministratorsGroupNeedsNoPolkit) {
  DaemonOptions options;
  options.arguments = {"--admin-group", absl::StrCat(kOperator)};
  ASSERT_NO_FATAL_FAILURE(Start(options));
  ExpectServed(RevokeProgram(kOperator, "packet_sampler"),
               R"({"type":"ub","data":[0,false]})");
  EXPECT_FALSE(RevokeProgram(kStranger, "packet_sampler").ok());
}

TEST_F(BusTest, AnswersAreTheSockets) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const Grant grant = Acquire();
  ExpectServed(bus().Call(0, "Check", {"s", "packet_sampler"}),
               R"({"type":"bs","data":[true,""]})");
  ExpectRefused(bus().Call(0, "Check", {"s", "none"}), "no program 'none'");
  daemon().AddCatalogEntry("broken", "name: ");
  const Outcome reloaded = bus().Call(0, "Reload", {"b", "false"});
  EXPECT_THAT(reloaded.output, HasSubstr(R"("data":[1,["broken: )"));
  EXPECT_THAT(bus().Call(0, "Check", {"s", "broken"}).output,
              HasSubstr("[false,"));
  ExpectRefused(bus().Call(0, "Revoke", {"ss", "grant", "4711"}), "no grant");
  ExpectServed(bus().Call(0, "Revoke", {"ss", "uid", "0"}),
               R"({"type":"ub","data":[1,false]})");
  EXPECT_EQ(Grants(), 0u);
  daemon().WritePolicy("rule {");
  ExpectRefused(bus().Call(0, "Reload", {"b", "false"}), "test.policy");
  EXPECT_THAT(bus().Call(0, "Status", {"b", "true"}).output,
              HasSubstr("test.policy"));
}

class PolkitTest : public BusTest {
 protected:
  // The daemon waits so long for polkit; 0: as always.
  void StartWaiting(int milliseconds, const std::string& without = "") {
    DaemonOptions options;
    if (milliseconds > 0) {
      options.config = absl::StrCat("limits { polkit_ms: ", milliseconds, " }");
    }
    if (!without.empty()) options.without = {without};
    Start(options);
  }
};

TEST_F(PolkitTest, AllowsWhomItsRulesAllow) {
  ASSERT_NO_FATAL_FAILURE(StartPolkit(Allowing("org.bpfgrant1.revoke")));
  ASSERT_NO_FATAL_FAILURE(Start());
  const Grant grant = Acquire();
  ExpectRefused(RevokeProgram(kStranger, "packet_sampler"),
                "polkit does not allow org.bpfgrant1.revoke");
  EXPECT_EQ(Grants(), 1u);
  ExpectServed(RevokeProgram(kOperator, "packet_sampler"),
               R"({"type":"ub","data":[1,false]})");
  EXPECT_EQ(Grants(), 0u);
  // One action is not another.
  ExpectRefused(bus().Call(kOperator, "Reload", {"b", "false"}),
                "polkit does not allow org.bpfgrant1.reload");
  ExpectRefused(bus().Call(kOperator, "Grants", {"bt", "true", "0"}),
                "polkit does not allow org.bpfgrant1.grants");
  ExpectRefused(bus().Call(kOperator, "List", {"bs", "true", ""}),
                "polkit does not allow org.bpfgrant1.read");
}

TEST_F(PolkitTest, IsNotAsked_WithoutMitigation) {
  ASSERT_NO_FATAL_FAILURE(StartPolkit(Allowing("nothing")));
  ASSERT_NO_FATAL_FAILURE(StartWithout("bus_authorization"));
  const Grant grant = Acquire();
  ExpectServed(RevokeProgram(kStranger, "packet_sampler"),
               R"({"type":"ub","data":[1,false]})");
}

// The files as they are installed: polkit knows the actions, and who is not
// root, with no rule of the administrator's, would have to authenticate.
TEST_F(PolkitTest, WithoutRulesSomebodyHasToAuthenticate) {
  ASSERT_NO_FATAL_FAILURE(StartPolkit(""));
  ASSERT_NO_FATAL_FAILURE(Start());
  for (const auto& [method, words] :
       std::vector<std::pair<const char*, std::vector<std::string>>>{
           {"List", {"bs", "true", ""}},
           {"Grants", {"bt", "true", "0"}},
           {"Reload", {"b", "false"}},
           {"Revoke", {"ss", "program", "packet_sampler"}}}) {
    SCOPED_TRACE(method);
    ExpectRefused(bus().Call(kOperator, method, words),
                  "somebody would have to authenticate");
  }
}

TEST_F(PolkitTest, ThatHangsHoldsUpNobodyElse) {
  ASSERT_NO_FATAL_FAILURE(StartPolkit(Allowing("org.bpfgrant1.revoke")));
  ASSERT_NO_FATAL_FAILURE(StartWaiting(60'000));
  bus().SignalPolkit(SIGSTOP);
  std::atomic<bool> answered = false;
  Outcome waited;
  std::thread asking([&] {
    waited = RevokeProgram(kOperator, "packet_sampler");
    answered = true;
  });
  // Root needs no polkit, nor do the sockets.
  for (int i = 0; i < 5; ++i) {
    const Grant grant = Acquire();
    ExpectServed(RevokeProgram(0, "packet_sampler"),
                 R"({"type":"ub","data":[1,false]})");
  }
  EXPECT_FALSE(answered);
  bus().SignalPolkit(SIGCONT);
  asking.join();
  ExpectServed(waited, R"({"type":"ub","data":[0,false]})");
}

TEST_F(PolkitTest, ThatHangsIsNotWaitedForLong) {
  ASSERT_NO_FATAL_FAILURE(StartPolkit(Allowing("org.bpfgrant1.revoke")));
  ASSERT_NO_FATAL_FAILURE(StartWaiting(700));
  bus().SignalPolkit(SIGSTOP);
  const auto begin = steady_clock::now();
  ExpectRefused(RevokeProgram(kOperator, "packet_sampler"),
                "polkit did not answer about org.bpfgrant1.revoke");
  EXPECT_GE(steady_clock::now() - begin, std::chrono::milliseconds(700));
  bus().SignalPolkit(SIGCONT);
  EXPECT_TRUE(RevokeProgram(kOperator, "packet_sampler").ok());
}

TEST_F(PolkitTest, ThatDiesRefuses) {
  ASSERT_NO_FATAL_FAILURE(StartPolkit(Allowing("org.bpfgrant1.revoke")));
  ASSERT_NO_FATAL_FAILURE(Start());
  EXPECT_TRUE(RevokeProgram(kOperator, "packet_sampler").ok());
  bus().SignalPolkit(SIGKILL);
  ExpectRefused(RevokeProgram(kOperator, "packet_sampler"),
                "as root or as a member of the administrators' group");
  EXPECT_TRUE(RevokeProgram(0, "packet_sampler").ok());
}

// With no bus the daemon works; it gets on it when there is one, and back.
TEST_F(BusTest, ComesAndGoesWithTheBus) {
  bus().Stop();
  ASSERT_NO_FATAL_FAILURE(Launch());
  EXPECT_THAT(Where(), HasSubstr("nowhere: no system bus: No such file"));
  { const Grant grant = Acquire(); }
  for (int i = 0; i < 2; ++i) {
    const absl::Status status = bus().Start(kBrokerUser);
    ASSERT_TRUE(status.ok()) << status;
    ExpectOnBus();
    EXPECT_TRUE(RevokeProgram(0, "packet_sampler").ok());
    bus().Stop();
    EXPECT_TRUE(
        WaitUntil([&] { return absl::StartsWith(Where(), "nowhere: "); },
                  std::chrono::seconds(20)));
    const Grant grant = Acquire();
  }
}

// Of a bus that lets only another have the name.
TEST_F(BusTest, SaysWhyItMayNotHaveItsName) {
  bus().Stop();
  const absl::Status status = bus().Start(kStranger);
  ASSERT_TRUE(status.ok()) << status;
  ASSERT_NO_FATAL_FAILURE(Launch());
  ExpectWhere(
      "nowhere: the bus refuses the name: "
      "org.freedesktop.DBus.Error.AccessDenied");
  const Grant grant = Acquire();
}

}  // namespace
}  // namespace bpfgrant::test
