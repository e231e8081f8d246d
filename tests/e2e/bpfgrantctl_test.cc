// bpfgrantctl against a real daemon: every verb as root and as nobody, tables,
// JSON, and what scripts rely on: exit codes.

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "bpfgrant/v1/messages.pb.h"
#include "client/bpfgrant/connection.h"
#include "gmock/gmock.h"
#include "google/protobuf/struct.pb.h"
#include "google/protobuf/util/json_util.h"
#include "gtest/gtest.h"
#include "proto/refusal/refusal.h"
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

using Words = std::vector<std::string>;

constexpr int kRefused = 1, kUsage = 2, kUnreachable = 3, kInternal = 4;

// Root may have all; nobody may sample, and may not steer.
constexpr char kPolicy[] = R"(
rule {
  name: "root"
  effect: ALLOW
  user: "0"
  program: "*"
  quota { grants: 64 }
  trusted: true
}
rule {
  name: "sampler-for-nobody"
  effect: ALLOW
  user: "65534"
  program: "packet_sampler"
  quota { grants: 4 }
}
rule {
  name: "no-steering"
  effect: DENY
  user: "65534"
  program: "reuseport_steer"
}
)";

std::string Tool() {
  const char* given = std::getenv("BPFGRANT_TEST_CTL");
  return given != nullptr ? given : BPFGRANTCTL_PATH;
}

// Root is an administrator by its uid: the tool needs no capability.
UnprivilegedOptions AsRoot() {
  UnprivilegedOptions options;
  options.uid = 0;
  options.gid = 0;
  return options;
}

std::vector<std::string> LinesOf(const std::string& text) {
  return absl::StrSplit(text, '\n', absl::SkipEmpty());
}

std::vector<std::string> FieldsOf(const std::string& line) {
  return absl::StrSplit(line, ' ', absl::SkipEmpty());
}

template <typename Message>
Message FromJson(const std::string& json) {
  Message message;
  const auto status =
      google::protobuf::util::JsonStringToMessage(json, &message);
  EXPECT_TRUE(status.ok()) << status.ToString() << "\n" << json;
  return message;
}

// The reason in {"refusal": {...}}.
std::string RefusalIn(const std::string& json) {
  const auto object = FromJson<google::protobuf::Struct>(json);
  const auto refusal = object.fields().find("refusal");
  if (refusal == object.fields().end()) return "";
  return refusal->second.struct_value().fields().at("reason").string_value();
}

class BpfgrantctlTest : public DaemonTest {
 protected:
  void SetUp() override {
    DaemonTest::SetUp();
    if (IsSkipped()) return;
    DaemonOptions options;
    options.policy = kPolicy;
    options.programs = kTwoPrograms;
    ASSERT_TRUE(StartDaemon(options));
  }

  Words WithSocket(Words words) {
    words.insert(words.end(), {"--socket", daemon().broker_socket()});
    return words;
  }
  Outcome Root(const Words& words) {
    return RunUnprivileged(Tool(), WithSocket(words), AsRoot());
  }
  Outcome Nobody(const Words& words) {
    return RunUnprivileged(Tool(), WithSocket(words));
  }

  // A session of this process's, which is root's.
  Connection Connect() {
    auto connection = Connection::Connect({.path = daemon().broker_socket()});
    EXPECT_TRUE(connection.ok()) << connection.status();
    return *std::move(connection);
  }
  Grant Acquire(Connection& connection) {
    auto grant = connection.Acquire(
        {.program = "packet_sampler", .interface = "packet_sampler/1"});
    EXPECT_TRUE(grant.ok()) << grant.status();
    return *std::move(grant);
  }
};

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
  const auto reply = FromJson<v1::DescribeReply>(
      Nobody({"--json", "describe", "packet_sampler"}).output);
  EXPECT_EQ(reply.summary().interface(), "packet_sampler/1");
  EXPECT_EQ(reply.detail().target(), v1::TARGET_SOCKET);
  EXPECT_THAT(reply.digest(), SizeIs(64));

  const Outcome header = Nobody({"header", "packet_sampler"});
  EXPECT_TRUE(header.ok()) << header.Describe();
  EXPECT_EQ(header.output, reply.header());
  EXPECT_THAT(header.output, HasSubstr("#define"));

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

TEST_F(BpfgrantctlTest, StatusTellsAdministratorsMore) {
  const Outcome root = Root({"status"});
  EXPECT_TRUE(root.ok()) << root.Describe();
  EXPECT_THAT(
      root.output,
      AllOf(HasSubstr("2 available, 0 unavailable"), HasSubstr("preemption: "),
            HasSubstr(daemon().policy_directory().string()),
            Not(HasSubstr("MITIGATION"))));
  const Outcome nobody = Nobody({"status", "--json"});
  EXPECT_TRUE(nobody.ok()) << nobody.Describe();
  const auto reply = FromJson<v1::StatusReply>(nobody.output);
  EXPECT_EQ(reply.programs(), 2);
  EXPECT_EQ(reply.policy_directory_size(), 0);
}

TEST_F(BpfgrantctlTest, DoctorExitsAsItFinds) {
  for (const Outcome& outcome : {Root({"doctor"}), Nobody({"doctor"})}) {
    const bool wrong = absl::StrContains(outcome.output, "\nWRONG");
    EXPECT_EQ(outcome.exit_code, wrong ? kRefused : 0) << outcome.Describe();
    EXPECT_THAT(
        outcome.output,
        AllOf(StartsWith("ok"), HasSubstr("as root"),
              HasSubstr("preemption is "), HasSubstr("read from: "),
              HasSubstr("unprivileged_bpf_disabled is"),
              HasSubstr("io_uring_disabled"), HasSubstr("peers are named by"),
              ::testing::ContainsRegex("packet_sampler +(PROGRAM|ATTACH)")));
  }
  const auto object =
      FromJson<google::protobuf::Struct>(Root({"doctor", "--json"}).output);
  EXPECT_GT(object.fields().at("findings").list_value().values_size(), 8);
  EXPECT_EQ(
      object.fields().at("status").struct_value().fields().count("gate_slots"),
      1u);
}

TEST_F(BpfgrantctlTest, ControlCharactersAreShownNotSent) {
  const std::string name =
      "\033[31mred\007\xc2\x9b"
      "2J\u202e\n";
  const std::string shown = "\\x1b[31mred\\x07\\xc2\\x9b2J\\xe2\\x80\\xae\\x0a";
  const Outcome explained = Nobody({"explain", name});
  EXPECT_EQ(explained.exit_code, kRefused);
  EXPECT_THAT(explained.output, HasSubstr("'" + shown + "'"));
  const Outcome described = Nobody({"describe", name});
  EXPECT_EQ(described.exit_code, kRefused);
  EXPECT_THAT(described.errors, HasSubstr("'" + shown + "'"));
  const Outcome json = Nobody({"explain", name, "--json"});
  for (const Outcome& outcome : {explained, described, json}) {
    for (const char control : {'\033', '\007', '\x9b'}) {
      EXPECT_THAT(outcome.output + outcome.errors,
                  Not(HasSubstr(std::string(1, control))));
    }
  }
  const Outcome not_text = Nobody({"explain", "\xff"});
  EXPECT_EQ(not_text.exit_code, kUsage) << not_text.Describe();
}

TEST_F(BpfgrantctlTest, ColorIsForTerminalsOrWhoAsksForIt) {
  EXPECT_THAT(Root({"list"}).output, Not(HasSubstr("\033")));
  EXPECT_THAT(Root({"list", "--color=never"}).output, Not(HasSubstr("\033")));
  EXPECT_THAT(Root({"list", "--color=always"}).output, HasSubstr("\033[1m"));
}

TEST_F(BpfgrantctlTest, WhatCannotBeWrittenIsAnError) {
  UnprivilegedOptions options = AsRoot();
  options.environment = {"BPFGRANT_SOCKET=" + daemon().broker_socket()};
  const Outcome outcome = RunUnprivileged(
      "/bin/sh", {"-c", "exec \"$0\" list >/dev/full", Tool()}, options);
  EXPECT_EQ(outcome.exit_code, kInternal) << outcome.Describe();
  EXPECT_THAT(outcome.errors, HasSubstr("No space left"));
}

TEST_F(BpfgrantctlTest, CompletionKnowsVerbsOptionsAndPrograms) {
  const auto complete = [this](const Words& words) {
    Words arguments = {"-c",
                       "source \"$0\"; COMP_WORDS=(\"$@\"); "
                       "COMP_CWORD=$(($# - 1)); _bpfgrantctl; "
                       "echo \"${COMPREPLY[@]}\"",
                       BPFGRANTCTL_COMPLETION, Tool()};
    arguments.insert(arguments.end(), words.begin(), words.end());
    UnprivilegedOptions options = AsRoot();
    options.environment = {"BPFGRANT_SOCKET=" + daemon().broker_socket()};
    const Outcome outcome = RunUnprivileged("/bin/bash", arguments, options);
    EXPECT_THAT(outcome.errors, IsEmpty());
    return outcome.output;
  };
  EXPECT_EQ(complete({"re"}), "revoke reload\n");
  EXPECT_EQ(complete({"revoke", "--un"}), "--unit\n");
  EXPECT_EQ(complete({"describe", ""}), "packet_sampler reuseport_steer\n");
  EXPECT_EQ(complete({"revoke", "--program", "p"}), "packet_sampler\n");
  EXPECT_EQ(complete({"--color", "=", "ne"}), "never\n");
  EXPECT_EQ(complete({"--socket", "/nowhere", "describe", ""}), "\n");
}

// What needs the daemon to be otherwise, or not to be there.
class BpfgrantctlAloneTest : public DaemonTest {};

TEST_F(BpfgrantctlAloneTest, DoctorShoutsAboutMitigationsThatAreOff) {
  DaemonOptions options;
  options.policy = kPolicy;
  options.without = {"quotas"};
  ASSERT_TRUE(StartDaemon(options));
  const Outcome outcome =
      RunUnprivileged(Tool(), {"doctor", "--socket", daemon().broker_socket()});
  EXPECT_EQ(outcome.exit_code, kRefused) << outcome.Describe();
  EXPECT_THAT(outcome.output, HasSubstr("!!! MITIGATIONS ARE OFF: QUOTAS !!!"));
}

TEST(BpfgrantctlUsageTest, WithoutADaemonItIsUnreachable) {
  const std::string socket = "/nonexistent/broker.sock";
  for (const Words& words :
       {Words{"list"}, Words{"describe", "x"}, Words{"header", "x"},
        Words{"explain", "x"}, Words{"grants"}, Words{"watch"},
        Words{"revoke", "--all"}, Words{"reload"}, Words{"status"}}) {
    Words all = {"--json", "--socket", socket};
    all.insert(all.end(), words.begin(), words.end());
    const Outcome outcome = RunUnprivileged(Tool(), all);
    EXPECT_EQ(outcome.exit_code, kUnreachable) << outcome.Describe();
    EXPECT_THAT(outcome.output, IsEmpty());
    EXPECT_THAT(outcome.errors, AllOf(StartsWith("bpfgrantctl: " + socket),
                                      EndsWith("(unreachable)\n")));
  }
  const Outcome doctor =
      RunUnprivileged(Tool(), {"doctor", "--socket", socket});
  EXPECT_EQ(doctor.exit_code, kRefused) << doctor.Describe();
  EXPECT_THAT(doctor.output, AllOf(StartsWith("WRONG"), HasSubstr("-> ")));
}

TEST(BpfgrantctlUsageTest, WrongUsageIsToldBeforeAnythingIsDone) {
  for (const Words& words :
       {Words{}, Words{"bogus"}, Words{"list", "x"}, Words{"describe"},
        Words{"revoke"}, Words{"revoke", "--all", "--uid", "0"},
        Words{"revoke", "--grant", "1", "--program", "x"},
        Words{"revoke", "--unit", ""}, Words{"revoke", "--digest", "abc"},
        Words{"revoke", "--user", "no-such-user"},
        Words{"revoke", "--uid", "-1"}, Words{"watch", "--count", "0"},
        Words{"explain", "x", "--uid", "3"},
        Words{"explain", "x", "--user", ""},
        Words{"explain", "x", "--user", "root", "--uid", "0"},
        Words{"list", "--color", "blue"}, Words{"list", "--timeout", "0"},
        Words{"list", "--socket", ""}}) {
    const Outcome outcome = RunUnprivileged(Tool(), words);
    EXPECT_EQ(outcome.exit_code, kUsage)
        << ::testing::PrintToString(words) << outcome.Describe();
    EXPECT_THAT(outcome.output, IsEmpty());
    EXPECT_THAT(outcome.errors,
                AllOf(StartsWith("bpfgrantctl: "), EndsWith("(usage)\n")));
  }
}

TEST(BpfgrantctlUsageTest, HelpNamesTheExitCodes) {
  const Outcome help = RunUnprivileged(Tool(), {"--help"});
  EXPECT_TRUE(help.ok());
  EXPECT_THAT(help.output,
              AllOf(HasSubstr("Exit codes:"), HasSubstr("doctor"),
                    HasSubstr("--timeout"), HasSubstr("BPFGRANT_SOCKET")));
  const Outcome version = RunUnprivileged(Tool(), {"--version"});
  EXPECT_TRUE(version.ok());
  EXPECT_THAT(version.output, StartsWith("bpfgrantctl "));
}

}  // namespace
}  // namespace bpfgrant::test
