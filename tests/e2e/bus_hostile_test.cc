// Whoever is on the bus, too, and means harm: floods, calls and leaves, says
// what no correct client says, makes the daemon flood others.

#include <chrono>
#include <csignal>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "tests/e2e/bus_fixture.h"
#include "tests/harness/unprivileged.h"

namespace bpfgrant::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kCallsOfOneUser = 8;
constexpr int kCallsOfAll = 64;

class HostileBusTest : public BusTest {
 protected:
  UnprivilegedOptions OnBus() {
    UnprivilegedOptions options;
    options.environment = {bus().variable()};
    options.timeout = milliseconds(90'000);
    return options;
  }
  UnprivilegedProcess Hostile(const std::vector<std::string>& words) {
    auto process = UnprivilegedProcess::Spawn(BUS_CLIENT_PATH, words, OnBus());
    EXPECT_TRUE(process.ok()) << process.status();
    return *std::move(process);
  }
  std::vector<std::string> LinesOf(const std::vector<std::string>& words) {
    const Outcome outcome = RunUnprivileged(BUS_CLIENT_PATH, words, OnBus());
    EXPECT_TRUE(outcome.ok()) << outcome.Describe();
    return absl::StrSplit(outcome.output, '\n', absl::SkipEmpty());
  }
  // A daemon whose polkit never answers, so that calls pile up.
  void StartWithHangingPolkit(const std::string& without = "") {
    ASSERT_NO_FATAL_FAILURE(StartPolkit(Allowing("nothing")));
    bus().SignalPolkit(SIGSTOP);
    DaemonOptions options;
    options.config = "limits { polkit_ms: 60000 }";
    if (!without.empty()) options.without = {without};
    ASSERT_NO_FATAL_FAILURE(Start(options));
  }
  // The longest that a client of the socket waits while `process` goes on.
  milliseconds LongestWait(UnprivilegedProcess& process, milliseconds time) {
    EXPECT_TRUE(process.WaitForLine("flooding").ok());
    steady_clock::duration longest{0};
    const auto until = steady_clock::now() + time;
    while (steady_clock::now() < until) {
      const auto begin = steady_clock::now();
      const Grant grant = Acquire();
      longest = std::max(longest, steady_clock::now() - begin);
    }
    return std::chrono::duration_cast<milliseconds>(longest);
  }
};

TEST_F(HostileBusTest, OneUsersCallsAreLimited) {
  ASSERT_NO_FATAL_FAILURE(StartWithHangingPolkit());
  UnprivilegedProcess waiting = Hostile({"wait", "80"});
  const auto line = waiting.WaitForLine("refused", milliseconds(60'000));
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(*line, absl::StrCat("refused ", 80 - kCallsOfOneUser, " of 80"));
  EXPECT_TRUE(RevokeProgram(0, "packet_sampler").ok());
  // Another user is asked about, and not turned away.
  EXPECT_THAT(bus()
                  .Busctl(kOperator,
                          {"--system", "--timeout=1", "call", "org.bpfgrant1",
                           "/org/bpfgrant1", "org.bpfgrant1.Manager", "Revoke",
                           "ss", "program", "x"})
                  .errors,
              HasSubstr("timed out"));
  waiting.CloseInput();
  EXPECT_TRUE(waiting.Wait().ok());
}

TEST_F(HostileBusTest, OneUsersCallsTakeAllPlaces_WithoutMitigation) {
  ASSERT_NO_FATAL_FAILURE(StartWithHangingPolkit("bus_calls_per_user"));
  UnprivilegedProcess waiting = Hostile({"wait", "80"});
  const auto line = waiting.WaitForLine("refused", milliseconds(60'000));
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(*line, absl::StrCat("refused ", 80 - kCallsOfAll, " of 80"));
  EXPECT_THAT(RevokeProgram(0, "packet_sampler").errors,
              HasSubstr("too many calls over the bus"));
  waiting.CloseInput();
  EXPECT_TRUE(waiting.Wait().ok());
}

// Whoever leaves gives its places back, and polkit is told.
TEST_F(HostileBusTest, WhoLeavesIsForgotten) {
  ASSERT_NO_FATAL_FAILURE(StartWithHangingPolkit());
  UnprivilegedOptions as_root;
  as_root.uid = 0;
  as_root.gid = 0;
  as_root.environment = {bus().variable()};
  auto monitor = UnprivilegedProcess::Spawn(
      "/usr/bin/dbus-monitor",
      {"--system", "member='CancelCheckAuthorization'"}, as_root);
  ASSERT_TRUE(monitor.ok()) << monitor.status();
  // Its own loss of its name begins what it prints.
  ASSERT_TRUE(monitor->WaitForLine("signal").ok());
  LinesOf({"leave", "40"});
  UnprivilegedProcess waiting =
      Hostile({"wait", absl::StrCat(kCallsOfOneUser)});
  const auto line = waiting.WaitForLine("refused", milliseconds(60'000));
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(*line, absl::StrCat("refused 0 of ", kCallsOfOneUser));
  waiting.Kill(SIGKILL);
  EXPECT_TRUE(monitor->WaitForLine("method call").ok());
  EXPECT_TRUE(RevokeProgram(0, "packet_sampler").ok());
}

TEST_F(HostileBusTest, AFloodHoldsUpNobodyOnTheSockets) {
  ASSERT_NO_FATAL_FAILURE(Start());
  UnprivilegedProcess flood = Hostile({"flood", "3"});
  EXPECT_LT(LongestWait(flood, milliseconds(2500)), milliseconds(1000));
  EXPECT_TRUE(flood.Wait().ok());
  ExpectOnBus();
  EXPECT_TRUE(RevokeProgram(0, "packet_sampler").ok());
}

TEST_F(HostileBusTest, StringsThatAreTooLongAreRefused) {
  ASSERT_NO_FATAL_FAILURE(Start());
  UnprivilegedProcess huge = Hostile({"huge", "8"});
  steady_clock::duration longest{0};
  while (IsRunning(huge.pid())) {
    const auto begin = steady_clock::now();
    const Grant grant = Acquire();
    longest = std::max(longest, steady_clock::now() - begin);
  }
  const Outcome outcome = huge.Wait();
  EXPECT_TRUE(outcome.ok()) << outcome.Describe();
  const std::vector<std::string> lines =
      absl::StrSplit(outcome.output, '\n', absl::SkipEmpty());
  EXPECT_EQ(lines,
            std::vector<std::string>(8, "org.bpfgrant1.Error.InvalidArgument"));
  EXPECT_LT(longest, milliseconds(2000));
}

TEST_F(HostileBusTest, WhatMakesNoSenseIsRefused) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const Grant grant = Acquire();
  // sd-bus's own, and ours.
  const std::string types = "org.freedesktop.DBus.Error.InvalidArgs";
  const std::string invalid = "org.bpfgrant1.Error.InvalidArgument";
  EXPECT_THAT(
      LinesOf({"wrong"}),
      ElementsAre("List : " + types, "List sb: " + types, "Revoke s: " + types,
                  "Revoke ss: " + invalid, "Revoke ss: " + invalid,
                  "Revoke ss: " + invalid, "Explain sa{sv}: " + invalid,
                  "Explain sa{sv}: " + invalid, "Explain sa{sv}: " + invalid,
                  "Explain sa{sv}: " + invalid,
                  "Acquire s: org.freedesktop.DBus.Error.UnknownMethod",
                  "List bs: org.freedesktop.DBus.Error.UnknownObject",
                  "Set ssv: org.freedesktop.DBus.Error.PropertyReadOnly"));
  EXPECT_EQ(Grants(), 1u);
  ExpectOnBus();
}

TEST_F(HostileBusTest, TheNameIsTheDaemonsAlone) {
  EXPECT_THAT(LinesOf({"own", "org.bpfgrant1"}),
              ElementsAre("Permission denied"));
}

class SignalTest : public HostileBusTest {
 protected:
  // Grants and gives back so often, and counts the signals of it.
  struct Seen {
    int began = 0, ended = 0, skipped = 0;
  };
  Seen Watch(int grants) {
    UnprivilegedProcess listener = Hostile({"listen"});
    EXPECT_TRUE(listener.WaitForLine("listening").ok());
    Seen seen;
    for (int i = 0; i < grants; ++i) {
      const Grant grant = Acquire();
    }
    // A reload is told behind all that.
    EXPECT_TRUE(bus().Call(0, "Reload", {"b", "false"}).ok());
    for (;;) {
      const auto line = listener.WaitForLine("signal");
      if (!line.ok()) {
        ADD_FAILURE() << line.status();
        break;
      }
      lines_.push_back(*line);
      seen.began += line->find("GrantBegan") != std::string::npos;
      seen.ended += line->find("GrantEnded") != std::string::npos;
      seen.skipped += line->find("Skipped") != std::string::npos;
      if (line->find("PropertiesChanged") != std::string::npos) break;
    }
    return seen;
  }
  std::vector<std::string> lines_;
};

TEST_F(SignalTest, TellOfGrantsAndNotWhose) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const Seen seen = Watch(2);
  EXPECT_EQ(seen.began, 2);
  EXPECT_EQ(seen.ended, 2);
  ASSERT_EQ(lines_.size(), 5u);
  EXPECT_EQ(lines_[0], "signal GrantBegan 1");
  EXPECT_EQ(lines_[1], "signal GrantEnded 1 released");
  EXPECT_EQ(lines_[4],
            "signal PropertiesChanged ProgramCount=1 UnavailableCount=0 "
            "RuleCount=2 LastReload=ok");
}

TEST_F(SignalTest, AreLimited) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const Seen seen = Watch(2000);
  // What a burst allows, and 32 for each second that it took: 60 at most.
  EXPECT_LT(seen.began + seen.ended, 256 + 32 * 60);
  EXPECT_GE(seen.began, 128);
}

TEST_F(SignalTest, FloodTheBus_WithoutMitigation) {
  ASSERT_NO_FATAL_FAILURE(StartWithout("bus_signal_rate"));
  const Seen seen = Watch(2000);
  EXPECT_EQ(seen.began, 2000);
  EXPECT_EQ(seen.ended, 2000);
  EXPECT_EQ(seen.skipped, 0);
}

}  // namespace
}  // namespace bpfgrant::test
