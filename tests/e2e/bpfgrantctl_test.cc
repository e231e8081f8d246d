// The verbs of bpfgrantctl that say and change what is granted.

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "bpfgrant/v1/messages.pb.h"
#include "client/bpfgrant/connection.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/refusal/refusal.h"
#include "tests/e2e/bpfgrantctl_fixture.h"
#include "tests/harness/daemon_fixture.h"
#include "tests/harness/unprivileged.h"

namespace bpfgrant::test {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::MatchesRegex;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

TEST_F(BpfgrantctlTest, ListShowsWhatTheCallerMayHave) {
  const Outcome root = Root({"list"});
  EXPECT_TRUE(root.ok()) << root.Describe();
  EXPECT_THAT(root.errors, IsEmpty());
  const std::vector<std::string> lines = LinesOf(root.output);
  ASSERT_THAT(lines, SizeIs(3)) << root.output;
  EXPECT_THAT(FieldsOf(lines[0]),
              ElementsAre("NAME", "INTERFACE", "AVAILABLE", "ALLOWED", "RULE",
                          "READY", "GRANTS", "DESCRIPTION"));
  EXPECT_THAT(lines[1],
              MatchesRegex("packet_sampler   packet_sampler/1   yes        "
                           "yes      root  [0-9]+ +0       .+"));
  EXPECT_THAT(lines[2], StartsWith("reuseport_steer  reuseport_steer/1  yes"));
  // One column begins at one place, in each line.
  for (const std::string& line : lines) {
    EXPECT_EQ(line[lines[0].find("DESCRIPTION") - 1], ' ') << line;
    EXPECT_NE(line[lines[0].find("DESCRIPTION")], ' ') << line;
  }

  const Outcome nobody = Nobody({"list", "--json"});
  EXPECT_TRUE(nobody.ok()) << nobody.Describe();
  const auto reply = FromJson<v1::ListReply>(nobody.output);
  ASSERT_EQ(reply.program_size(), 1) << nobody.output;
  EXPECT_EQ(reply.program(0).name(), "packet_sampler");
  EXPECT_EQ(reply.program(0).verdict().rule(), "sampler-for-nobody");
  // The names of the .proto, and fields that are 0.
  EXPECT_THAT(nobody.output, HasSubstr("\"grants\": 0"));
  EXPECT_THAT(nobody.output, HasSubstr("\"pool_ready\""));
}

TEST_F(BpfgrantctlTest, DescribeAndHeaderTellAllOfAProgram) {
  const Outcome root = Root({"describe", "reuseport_steer"});
  EXPECT_TRUE(root.ok()) << root.Describe();
  EXPECT_THAT(root.output, HasSubstr("reuseport_steer.manifest"));
  EXPECT_THAT(root.output, ::testing::ContainsRegex("digest: +[0-9a-f]{64}\n"));
  EXPECT_THAT(root.output,
              ::testing::ContainsRegex("attached to: +a socket's reuseport"));
  EXPECT_THAT(root.output, HasSubstr("HANDLE"));
  EXPECT_THAT(root.output, ::testing::ContainsRegex(
                               "first_socket +an fd: UDP_SOCKET +none"));
  const auto reply = FromJson<v1::DescribeReply>(
      Nobody({"--json", "describe", "packet_sampler"}).output);
  EXPECT_EQ(reply.summary().interface(), "packet_sampler/1");
  EXPECT_EQ(reply.detail().target(), v1::TARGET_SOCKET);
  EXPECT_THAT(reply.digest(), SizeIs(64));

  const Outcome header = Nobody({"header", "packet_sampler"});
  EXPECT_TRUE(header.ok()) << header.Describe();
  EXPECT_EQ(header.output, reply.header());
  EXPECT_THAT(header.output,
              HasSubstr("#define PACKET_SAMPLER_PARAMETER_MOST_BYTES"));
  const Outcome status = Root({"status"});
  EXPECT_THAT(status.output,
              ::testing::ContainsRegex("limit program.maps: +64 .built in."));

  // Whoever may not have it does not learn that it is there.
  for (const char* verb : {"describe", "header"}) {
    const Outcome refused = Nobody({verb, "reuseport_steer", "--json"});
    EXPECT_EQ(refused.exit_code, kRefused) << refused.Describe();
    EXPECT_EQ(RefusalIn(refused.output), "REASON_UNKNOWN_PROGRAM");
    EXPECT_THAT(refused.errors, AllOf(StartsWith("bpfgrantctl: no program"),
                                      EndsWith("(unknown-program)\n")));
  }
}

TEST_F(BpfgrantctlTest, ExplainExitsAsTheAnswerIs) {
  const Outcome yes = Nobody({"explain", "packet_sampler"});
  EXPECT_TRUE(yes.ok()) << yes.Describe();
  EXPECT_THAT(yes.output,
              AllOf(HasSubstr("may have"), HasSubstr("'sampler-for-nobody'"),
                    HasSubstr("0 of 4 grants in use")));

  const Outcome no = Nobody({"explain", "reuseport_steer"});
  EXPECT_EQ(no.exit_code, kRefused) << no.Describe();
  EXPECT_THAT(no.output,
              AllOf(HasSubstr("may not have"), HasSubstr("'no-steering'"),
                    HasSubstr("test.policy:"), HasSubstr("denied-by-rule")));

  const Outcome json =
      Root({"explain", "reuseport_steer", "--user", "nobody", "--json"});
  EXPECT_EQ(json.exit_code, kRefused) << json.Describe();
  const auto reply = FromJson<v1::ExplainReply>(json.output);
  EXPECT_EQ(reply.verdict().reason(), v1::REASON_DENIED_BY_RULE);

  const Words numbers = {
      "explain", "packet_sampler", "--uid", "65534",   "--gid",
      "65534",   "--group",        "4",     "--group", "5"};
  EXPECT_TRUE(Root(numbers).ok());
  // Not even about oneself: what is said of groups is not the kernel's word.
  const Outcome others = Nobody(numbers);
  EXPECT_EQ(others.exit_code, kRefused) << others.Describe();
  EXPECT_THAT(others.errors, EndsWith("(not-administrator)\n"));
}

TEST_F(BpfgrantctlTest, GrantsShowsWhatIsHeld) {
  Connection connection = Connect();
  const Grant grant = Acquire(connection);
  const Outcome root = Root({"grants"});
  EXPECT_TRUE(root.ok()) << root.Describe();
  const std::vector<std::string> lines = LinesOf(root.output);
  ASSERT_THAT(lines, SizeIs(2)) << root.output;
  EXPECT_THAT(
      lines[1],
      MatchesRegex(absl::StrCat(
          grant.id(),
          " +packet_sampler  packet_sampler/1  [0-9a-f]{12}  0    "
          "root  ",
          getpid(),
          " +[0-9]+ +PROGRAM   yes      "
          "20[0-9]{2}-[0-9]{2}-[0-9]{2} [0-9:]{8}  [0-9]+ s  root  .+")));

  const auto reply =
      FromJson<v1::GrantsReply>(Root({"grants", "--json"}).output);
  ASSERT_EQ(reply.grant_size(), 1);
  EXPECT_EQ(reply.grant(0).grant(), grant.id());
  EXPECT_THAT(reply.grant(0).digest(), SizeIs(64));
  EXPECT_THAT(LinesOf(Nobody({"grants"}).output), SizeIs(1));
}

TEST_F(BpfgrantctlTest, GrantsAndStatusShowWhatIsStillHeld) {
  EXPECT_THAT(Root({"status"}).output,
              AllOf(HasSubstr("released, still held:"),
                    HasSubstr("when nothing is left in the kernel")));
  Connection connection = Connect();
  Grant grant = Acquire(connection);
  const UniqueFd copy(
      fcntl(grant.handles().at(1).fd.get(), F_DUPFD_CLOEXEC, 0));
  EXPECT_EQ(ReasonOf(grant.ReleaseAndWait(std::chrono::milliseconds(100))),
            v1::REASON_STILL_HELD);
  const std::vector<std::string> lines = LinesOf(Root({"grants"}).output);
  ASSERT_THAT(lines, SizeIs(2));
  EXPECT_THAT(lines[1],
              MatchesRegex(".* released, still held: map [0-9]+ \\(.+\\)"));
  const auto reply =
      FromJson<v1::GrantsReply>(Root({"grants", "--json"}).output);
  ASSERT_EQ(reply.grant_size(), 1);
  EXPECT_EQ(reply.grant(0).ended(), v1::REASON_RELEASED);
  EXPECT_EQ(FromJson<v1::StatusReply>(Root({"status", "--json"}).output).held(),
            1u);
  // Of what lives there is nothing to revoke.
  EXPECT_EQ(Root({"revoke", "--all"}).output, "revoked 0 grants\n");
}

TEST_F(BpfgrantctlTest, WatchSeesAGrantBeginAndEnd) {
  auto text =
      UnprivilegedProcess::Spawn(Tool(), WithSocket({"watch"}), AsRoot());
  auto json = UnprivilegedProcess::Spawn(
      Tool(), WithSocket({"watch", "--json", "--count", "2"}), AsRoot());
  auto nobody = UnprivilegedProcess::Spawn(Tool(), WithSocket({"watch"}));
  ASSERT_TRUE(text.ok() && json.ok() && nobody.ok());
  // They do not say when they have begun to watch.
  Connection connection = Connect();
  bool began = false, ended = false;
  for (int i = 0; i < 100 && !(began && ended); ++i) {
    EXPECT_TRUE(Acquire(connection).Release().ok());
    const auto line = text->WaitForLine("20", std::chrono::milliseconds(100));
    if (!line.ok()) continue;
    began |= absl::StrContains(*line, "  began     grant ");
    ended |= absl::StrContains(*line, "  ended     grant ") &&
             absl::StrContains(*line, "  released");
    EXPECT_THAT(*line, AllOf(HasSubstr("packet_sampler  uid 0  pid "),
                             HasSubstr("rule root")));
  }
  EXPECT_TRUE(began && ended);
  text->Kill(SIGTERM);
  nobody->Kill(SIGTERM);
  EXPECT_THAT(nobody->Wait().output, IsEmpty());

  bool counts = false;
  for (int i = 0; i < 100 && !counts; ++i) {
    EXPECT_TRUE(Acquire(connection).Release().ok());
    counts = json->WaitForLine("{", std::chrono::milliseconds(100)).ok();
  }
  // The second one, if what it saw first was an end.
  EXPECT_TRUE(Acquire(connection).Release().ok());
  const Outcome counted = json->Wait();
  EXPECT_TRUE(counted.ok()) << counted.Describe();
  const std::vector<std::string> lines = LinesOf(counted.output);
  ASSERT_THAT(lines, SizeIs(2)) << counted.output;
  EXPECT_EQ(FromJson<v1::Event>(lines[0]).grant().program(), "packet_sampler");
}

TEST_F(BpfgrantctlTest, WatchEndsWithTheDaemon) {
  auto watch =
      UnprivilegedProcess::Spawn(Tool(), WithSocket({"watch"}), AsRoot());
  ASSERT_TRUE(watch.ok());
  Connection connection = Connect();
  for (int i = 0; i < 100; ++i) {
    EXPECT_TRUE(Acquire(connection).Release().ok());
    if (watch->WaitForLine("", std::chrono::milliseconds(100)).ok()) break;
  }
  EXPECT_TRUE(daemon().Stop().ok());
  const Outcome outcome = watch->Wait();
  EXPECT_EQ(outcome.exit_code, kUnreachable) << outcome.Describe();
}

TEST_F(BpfgrantctlTest, RevokeTakesEachSelector) {
  Connection connection = Connect();
  std::vector<Words> selectors = {{"--program", "packet_sampler"},
                                  {"--uid", "0"},
                                  {"--user", "root"},
                                  {"--all"}};
  const std::string digest =
      FromJson<v1::DescribeReply>(
          Root({"describe", "packet_sampler", "--json"}).output)
          .digest();
  selectors.push_back({"--digest", digest});
  selectors.push_back({"--digest", digest.substr(0, 12)});
  for (const Words& selector : selectors) {
    const Grant grant = Acquire(connection);
    Words words = {"revoke"};
    words.insert(words.end(), selector.begin(), selector.end());
    const Outcome outcome = Root(words);
    EXPECT_TRUE(outcome.ok()) << outcome.Describe();
    EXPECT_THAT(outcome.output, StartsWith("revoked 1 grant; ")) << selector[0];
    EXPECT_TRUE(connection.ProcessEvents().ok());
    EXPECT_EQ(grant.end_reason(), v1::REASON_REVOKED) << selector[0];
  }
  const Grant first = Acquire(connection), second = Acquire(connection);
  const Words one = {"revoke", "--grant", absl::StrCat(first.id()), "--json"};
  const auto reply = FromJson<v1::RevokeReply>(Root(one).output);
  EXPECT_EQ(reply.revoked(), 1);
  EXPECT_TRUE(connection.ProcessEvents().ok());
  EXPECT_TRUE(first.ended());
  EXPECT_FALSE(second.ended());

  const Outcome again = Root(one);
  EXPECT_EQ(again.exit_code, kRefused) << again.Describe();
  EXPECT_EQ(RefusalIn(again.output), "REASON_UNKNOWN_GRANT");
  const Outcome none = Root({"revoke", "--unit", "no.service"});
  EXPECT_TRUE(none.ok()) << none.Describe();
  EXPECT_EQ(none.output, "revoked 0 grants\n");
}

TEST_F(BpfgrantctlTest, RevokeAndReloadAreForAdministrators) {
  for (const Words& words :
       {Words{"revoke", "--all"}, Words{"revoke", "--uid", "65534"},
        Words{"reload"}}) {
    Words json = words;
    json.push_back("--json");
    const Outcome outcome = Nobody(json);
    EXPECT_EQ(outcome.exit_code, kRefused) << outcome.Describe();
    EXPECT_EQ(RefusalIn(outcome.output), "REASON_NOT_ADMINISTRATOR");
    EXPECT_THAT(outcome.errors, EndsWith("(not-administrator)\n"));
  }
}

TEST_F(BpfgrantctlTest, ReloadTellsWhatIsWrongAndWhere) {
  const Outcome good = Root({"reload"});
  EXPECT_TRUE(good.ok()) << good.Describe();
  EXPECT_THAT(LinesOf(good.output),
              ElementsAre("programs:     2", "rules:        3",
                          "revoked:      0 grants", "unavailable:  0"));

  daemon().AddCatalogEntry("broken", "name: \"broken\"\nnonsense: 1\n");
  const Outcome one = Root({"reload"});
  EXPECT_TRUE(one.ok()) << one.Describe();
  EXPECT_THAT(one.output, AllOf(HasSubstr("unavailable:  1\n"),
                                HasSubstr("broken.manifest:2")));
  const Outcome doctor = Root({"doctor"});
  EXPECT_EQ(doctor.exit_code, kRefused) << doctor.Describe();
  EXPECT_THAT(doctor.output, HasSubstr("broken.manifest:2"));

  daemon().WritePolicy("rule { nonsense: 1 }\n");
  const Outcome rejected = Root({"reload", "--json"});
  EXPECT_EQ(rejected.exit_code, kRefused) << rejected.Describe();
  EXPECT_THAT(rejected.errors, HasSubstr("test.policy:1"));
  EXPECT_NE(RefusalIn(rejected.output), "");
}

}  // namespace
}  // namespace bpfgrant::test
