// bpfgrantctl itself: the daemon's state, output, completion, wrong usage.

#include <fcntl.h>
#include <signal.h>

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "bpfgrant/v1/messages.pb.h"
#include "gmock/gmock.h"
#include "google/protobuf/struct.pb.h"
#include "gtest/gtest.h"
#include "proto/refusal/refusal.h"
#include "tests/e2e/bpfgrantctl_fixture.h"
#include "tests/harness/daemon_fixture.h"
#include "tests/harness/unprivileged.h"

namespace bpfgrant::test {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

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
  EXPECT_EQ(complete({"explain", "--m"}), "--matrix\n");
  EXPECT_EQ(complete({"reload", "--e"}), "--enforce\n");
  EXPECT_EQ(complete({"su"}), "suggest\n");
  EXPECT_EQ(complete({"top", "--o"}), "--once\n");
  EXPECT_EQ(complete({"exec", "--grant", "p"}), "packet_sampler\n");
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

TEST_F(BpfgrantctlAloneTest, CompletionWaitsForNoDaemonThatHangs) {
  DaemonOptions options;
  options.policy = kPolicy;
  ASSERT_TRUE(StartDaemon(options));
  daemon().Kill(Daemon::Process::kBroker, SIGSTOP);
  UnprivilegedOptions environment;
  environment.environment = {"BPFGRANT_SOCKET=" + daemon().broker_socket()};
  const Outcome outcome = RunUnprivileged(
      "/bin/bash",
      {"-c",
       "source \"$0\"; COMP_WORDS=(\"$1\" describe ''); COMP_CWORD=2; "
       "SECONDS=0; _bpfgrantctl; echo \"${#COMPREPLY[@]} $((SECONDS < 10))\"",
       BPFGRANTCTL_COMPLETION, Tool()},
      environment);
  daemon().Kill(Daemon::Process::kBroker, SIGCONT);
  EXPECT_EQ(outcome.output, "0 1\n") << outcome.Describe();
  EXPECT_THAT(outcome.errors, IsEmpty());
}

TEST(BpfgrantctlUsageTest, WithoutADaemonItIsUnreachable) {
  const std::string socket = "/nonexistent/broker.sock";
  for (const Words& words :
       {Words{"list"}, Words{"describe", "x"}, Words{"header", "x"},
        Words{"explain", "x"}, Words{"grants"}, Words{"watch"},
        Words{"revoke", "--all"}, Words{"reload"}, Words{"suggest"},
        Words{"explain", "--matrix"}, Words{"status"}, Words{"metrics"},
        Words{"top"}}) {
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
       {Words{},
        Words{"bogus"},
        Words{"list", "x"},
        Words{"describe"},
        Words{"revoke"},
        Words{"revoke", "--all", "--uid", "0"},
        Words{"revoke", "--grant", "1", "--program", "x"},
        Words{"revoke", "--unit", ""},
        Words{"revoke", "--digest", "abc"},
        Words{"revoke", "--user", "no-such-user"},
        Words{"revoke", "--uid", "-1"},
        Words{"watch", "--count", "0"},
        Words{"explain"},
        Words{"explain", "x", "--matrix"},
        Words{"explain", "x", "--unit", "a.service"},
        Words{"explain", "x", "--pid", "1", "--uid", "0", "--gid", "0"},
        Words{"explain", "x", "--pid", "1", "--label", "l"},
        Words{"explain", "x", "--uid", "3"},
        Words{"explain", "x", "--user", ""},
        Words{"explain", "x", "--user", "root", "--uid", "0"},
        Words{"list", "--color", "blue"},
        Words{"list", "--timeout", "0"},
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
