// That the fixture starts, reloads, stops and cleans up after a real daemon.

#include "tests/harness/daemon_fixture.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/process_tree.h"

namespace bpfgrant::test {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

using DaemonFixtureTest = DaemonTest;

std::string UidOf(pid_t process) {
  std::ifstream file("/proc/" + std::to_string(process) + "/status");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("Uid:\t", 0) == 0)
      return line.substr(5, line.find('\t', 5) - 5);
  }
  return "";
}

bool CanConnect(const std::string& path, int type) {
  const UniqueFd socket(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  return connect(socket.get(), reinterpret_cast<sockaddr*>(&address),
                 sizeof(address)) == 0;
}

TEST_F(DaemonFixtureTest, StartsAndStops) {
  DaemonOptions options;
  options.policy = kAllowAll;
  options.programs = kTwoPrograms;
  ASSERT_TRUE(StartDaemon(options));
  EXPECT_TRUE(CanConnect(daemon().broker_socket(), SOCK_SEQPACKET));
  EXPECT_TRUE(CanConnect(daemon().control_socket(), SOCK_STREAM));
  EXPECT_EQ(UidOf(daemon().PidOf(Daemon::Process::kBroker)), "64999");
  const pid_t loader = daemon().PidOf(Daemon::Process::kLoader);
  EXPECT_GT(loader, 0);
  EXPECT_THAT(daemon().Log(), HasSubstr("2 programs, 0 unavailable, 1 rules"));
  const auto runtime = daemon().runtime_directory();
  EXPECT_TRUE(daemon().Stop().ok());
  EXPECT_FALSE(daemon().running());
  EXPECT_FALSE(IsRunning(loader));
  EXPECT_FALSE(CanConnect(runtime / "broker.sock", SOCK_SEQPACKET));
}

TEST_F(DaemonFixtureTest, ReloadTakesWhatWasWritten) {
  DaemonOptions options;
  options.programs = kTwoPrograms;
  ASSERT_TRUE(StartDaemon(options));
  EXPECT_THAT(daemon().Log(), HasSubstr("2 programs, 0 unavailable, 0 rules"));
  daemon().WritePolicy(kAllowAll);
  daemon().RemoveCatalogEntry("reuseport_steer");
  daemon().AddCatalogEntry("broken", "name: \"broken\"");
  const absl::Status status = daemon().Reload();
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(daemon().Log(), HasSubstr("broken.manifest"));
}

TEST_F(DaemonFixtureTest, WhatDoesNotStartSaysWhy) {
  DaemonOptions options;
  options.arguments = {"--no-such-option"};
  const auto daemon = Daemon::Start(options);
  ASSERT_FALSE(daemon.ok());
  EXPECT_THAT(daemon.status().ToString(), HasSubstr("exit status 2"));
  EXPECT_THAT(daemon.status().ToString(), HasSubstr("--no-such-option"));
}

TEST_F(DaemonFixtureTest, KilledProcessesAreNoticed) {
  ASSERT_TRUE(StartDaemon({.programs = kTwoPrograms}));
  const pid_t loader = daemon().PidOf(Daemon::Process::kLoader);
  daemon().Kill(Daemon::Process::kBroker, SIGKILL);
  const int status = daemon().WaitForEnd(milliseconds(5000));
  EXPECT_EQ(WTERMSIG(status), SIGKILL);
  EXPECT_EQ(daemon().PidOf(Daemon::Process::kBroker), -1);
  EXPECT_TRUE(
      WaitUntil([&] { return !IsRunning(loader); }, milliseconds(5000)));
}

TEST_F(DaemonFixtureTest, WeakenedDaemonSaysSo) {
  DaemonOptions options;
  options.programs = kTwoPrograms;
  options.without = {"quotas", "lock_filter"};
  ASSERT_TRUE(StartDaemon(options));
  EXPECT_THAT(daemon().Log(), HasSubstr("MITIGATION OFF: quotas"));
  EXPECT_THAT(daemon().Log(), HasSubstr("MITIGATION OFF: lock_filter"));
}

TEST_F(DaemonFixtureTest, WeakenedDaemonKnowsItsNames) {
  DaemonOptions options;
  options.without = {"gravity"};
  const auto daemon = Daemon::Start(options);
  ASSERT_FALSE(daemon.ok());
  EXPECT_THAT(daemon.status().ToString(), HasSubstr("gravity"));
}

TEST_F(DaemonFixtureTest, InstalledDaemonHasNoWayToBeWeakened) {
  DaemonOptions options;
  options.arguments = {"--without", "quotas"};
  const auto daemon = Daemon::Start(options);
  ASSERT_FALSE(daemon.ok());
  EXPECT_THAT(daemon.status().ToString(), HasSubstr("exit status 2"));
}

}  // namespace
}  // namespace bpfgrant::test
