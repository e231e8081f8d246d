// What the service manager's watchdog hears of a daemon that hangs in part.

#include <signal.h>

#include <chrono>
#include <string>

#include "gtest/gtest.h"
#include "tests/privileged/client_fixture.h"

namespace bpfgrant::test {
namespace {

using std::chrono::milliseconds;
using Process = Daemon::Process;

// What the daemon is told to say something in; it does so thrice as often.
constexpr milliseconds kGiven{900};

class WatchdogTest : public ClientTest {
 protected:
  void StartWatched(const std::string& environment) {
    DaemonOptions options;
    options.environment = {environment};
    options.programs = {"packet_sampler"};
    ASSERT_NO_FATAL_FAILURE(Start(options));
  }
  void StartWatched() { StartWatched("WATCHDOG_USEC=900000"); }
  void ExpectFed() {
    const absl::Status status = daemon().WaitForNotice("WATCHDOG=1", kPatience);
    EXPECT_TRUE(status.ok()) << status;
  }
  // That a service manager would have had enough by now.
  void ExpectStarved() {
    daemon().ForgetNotices();
    const absl::Status status =
        daemon().WaitForNotice("WATCHDOG=1", 2 * kGiven);
    EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  }
  // What was said before the process stopped may have been read by nobody yet.
  void StopProcess(Process process) {
    daemon().Kill(process, SIGSTOP);
    (void)daemon().WaitForNotice("WATCHDOG=1", kGiven / 3);
  }
};

TEST_F(WatchdogTest, IsFedAgainAndAgain) {
  ASSERT_NO_FATAL_FAILURE(StartWatched());
  for (int i = 0; i < 3; ++i) ExpectFed();
}

TEST_F(WatchdogTest, IsNotFedWhereThereIsNone) {
  ASSERT_NO_FATAL_FAILURE(StartWatched("WATCHDOG_USEC=0"));
  ExpectStarved();
}

TEST_F(WatchdogTest, StarvesWhenTheLoaderHangsThoughTheBrokerServes) {
  ASSERT_NO_FATAL_FAILURE(StartWatched());
  ExpectFed();
  StopProcess(Process::kLoader);
  ExpectStarved();
  // The broker itself is well: what it does alone it goes on doing.
  EXPECT_EQ(Status().broker_pid(),
            static_cast<uint32_t>(daemon().PidOf(Process::kBroker)));
  EXPECT_NE(daemon().Log().find("the loader has not answered for 300 ms"),
            std::string::npos);
  daemon().Kill(Process::kLoader, SIGCONT);
  ExpectFed();
}

TEST_F(WatchdogTest, StarvesWhenTheBrokerHangs) {
  ASSERT_NO_FATAL_FAILURE(StartWatched());
  ExpectFed();
  StopProcess(Process::kBroker);
  ExpectStarved();
  daemon().Kill(Process::kBroker, SIGCONT);
  ExpectFed();
}

}  // namespace
}  // namespace bpfgrant::test
