// Coming back from a loop that sleeps: woken, by a deadline, by a signal, or
// because it must not sleep; and running it again afterwards.

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "tests/loop/client/probe_test.h"

namespace bpfgrant::test {
namespace {

using Clock = std::chrono::steady_clock;

class WakeTest : public ProbeTest {
 protected:
  // A loop that sleeps until something is written to its streams.
  void MakeServer(probe_job job = PROBE_SERVE) {
    Make(job);
    for (unsigned i = 0; i < PROBE_FDS && !HasFatalFailure(); ++i)
      MakeStream(i);
  }
  // Has the loop end, to see that it still works.
  void ExpectServes() {
    const uint64_t seen = memory().seen;
    for (unsigned i = PROBE_FDS - 1; i > 0; --i) Write(i, "x");
    Write(0, "q");
    EXPECT_THAT(RunFor(kPatience), StopsWith(BPFGRANT_STOP_DONE));
    EXPECT_GT(memory().seen, seen);
  }
  // Runs `what` on another thread while the loop sleeps.
  template <typename What>
  std::thread Meanwhile(What what) {
    return std::thread([what] {
      std::this_thread::sleep_for(kMoment);
      what();
    });
  }
  // Events of the loop's eventfd within `time`; reads it.
  bool Signalled(std::chrono::milliseconds time) {
    UniqueFd poller(epoll_create1(EPOLL_CLOEXEC));
    epoll_event event{.events = EPOLLIN};
    EXPECT_EQ(epoll_ctl(poller.get(), EPOLL_CTL_ADD, loop().event_fd(), &event),
              0);
    // The kernel has the thread come round for what the ring got.
    const auto until = Clock::now() + time;
    int count;
    do {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
          until - Clock::now());
      count = epoll_wait(poller.get(), &event, 1,
                         std::max(0, static_cast<int>(left.count())));
    } while (count < 0 && errno == EINTR);
    EXPECT_GE(count, 0) << std::strerror(errno);
    uint64_t value = 0;
    if (count == 1) {
      EXPECT_EQ(read(loop().event_fd(), &value, sizeof(value)), 8);
    }
    return count == 1;
  }
};
BPFGRANT_PLACES(WakeTest);

TEST_P(WakeTest, AnotherThreadWakesASleepingLoop) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(MakeServer());
  for (const int detail : {5, -7, 0}) {
    std::thread other =
        Meanwhile([&] { EXPECT_TRUE(loop().Wake(detail).ok()); });
    EXPECT_THAT(RunFor(kPatience), WokenWith(detail));
    other.join();
    EXPECT_EQ(loop().status().stop, static_cast<uint32_t>(BPFGRANT_STOP_WOKEN));
    EXPECT_EQ(loop().status().detail, detail);
  }
  ExpectServes();
}

TEST_P(WakeTest, WakesALoopThatWaitsForMore) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(MakeServer(PROBE_SERVE_ALL));
  std::thread other = Meanwhile([&] { EXPECT_TRUE(loop().Wake(5).ok()); });
  EXPECT_THAT(RunFor(kPatience), WokenWith(5));
  other.join();
  ExpectServes();
}

TEST_P(WakeTest, WakesALoopThatHasSomethingAndWaitsForMore) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(MakeServer(PROBE_SERVE_ALL));
  std::thread other = Meanwhile([&] {
    Write(1, "x");
    std::this_thread::sleep_for(kMoment);
    EXPECT_TRUE(loop().Wake(5).ok());
  });
  EXPECT_THAT(RunFor(kPatience), WokenWith(5));
  other.join();
  ExpectServes();
}

TEST_P(WakeTest, AWakeBeforeTheRunStopsThatRun) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(MakeServer());
  ASSERT_TRUE(loop().Wake(1).ok());
  ASSERT_TRUE(loop().Wake(2).ok());
  EXPECT_THAT(RunFor(kPatience), WokenWith(1));
  EXPECT_THAT(RunFor(kPatience), WokenWith(2));
  // Not a third time, although both left something in the ring.
  EXPECT_THAT(RunFor(kMoment), StopsBy(Cause::kDeadline));
  ExpectServes();
}

TEST_P(WakeTest, AWakeThatComesTooLateIsTheNextRuns) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Make(PROBE_COUNT, 1));
  EXPECT_THAT(Run(), StopsWith(BPFGRANT_STOP_DONE));
  ASSERT_TRUE(loop().Wake(3).ok());
  EXPECT_THAT(Run(), WokenWith(3));
  EXPECT_THAT(Run(), StopsWith(BPFGRANT_STOP_DONE));
}

TEST_P(WakeTest, EveryWakeOfManyThreadsCounts) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(MakeServer());
  constexpr int kThreads = 4, kEach = 50;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([this] {
      for (int wake = 1; wake <= kEach; ++wake) {
        EXPECT_TRUE(loop().Wake(wake).ok());
      }
    });
  }
  int sum = 0;
  for (int i = 0; i < kThreads * kEach; ++i) {
    const auto stop = RunFor(kPatience);
    ASSERT_TRUE(stop.ok()) << stop.status();
    ASSERT_EQ(stop->why, static_cast<uint32_t>(BPFGRANT_STOP_WOKEN));
    ASSERT_EQ(stop->cause, Cause::kLoop);
    sum += stop->detail;
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(sum, kThreads * kEach * (kEach + 1) / 2);
  EXPECT_THAT(RunFor(kMoment), StopsBy(Cause::kDeadline));
  ExpectServes();
}

TEST_P(WakeTest, ADeadlineEndsTheSleep) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(MakeServer());
  for (int i = 0; i < 3; ++i) {
    const auto begin = Clock::now();
    EXPECT_THAT(RunFor(kMoment), StopsBy(Cause::kDeadline));
    EXPECT_GE(Clock::now() - begin, kMoment);
    EXPECT_LT(Clock::now() - begin, kPatience);
  }
  // One that was set and not reached does not stop the next run.
  ASSERT_TRUE(loop().Wake(1).ok());
  EXPECT_THAT(RunFor(kMoment), WokenWith(1));
  std::this_thread::sleep_for(2 * kMoment);
  ExpectServes();
}

TEST_P(WakeTest, ADeadlineEndsAWaitForMore) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(MakeServer(PROBE_SERVE_ALL));
  EXPECT_THAT(RunFor(kMoment), StopsBy(Cause::kDeadline));
  ExpectServes();
}

TEST_P(WakeTest, ADeadlineEndsALoopThatNeverWaits) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Make(PROBE_SPIN, ~0U));
  EXPECT_THAT(RunFor(kMoment), StopsBy(Cause::kDeadline));
  EXPECT_GT(memory().steps, 0u);
}

TEST_P(WakeTest, ADeadlineThatHasPassedStopsItBeforeTheFirstStep) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(MakeServer());
  EXPECT_THAT(RunFor(-kMoment), StopsBy(Cause::kDeadline));
  EXPECT_EQ(memory().steps, 0u);
  ExpectServes();
}

std::atomic<int> signals{0};

TEST_P(WakeTest, ASignalEndsTheSleep) {
  BPFGRANT_IN_PLACE();
  struct sigaction action {};
  action.sa_handler = [](int) { signals += 1; };
  // Not even SA_RESTART has it sleep on.
  action.sa_flags = SA_RESTART;
  signals = 0;
  ASSERT_EQ(sigaction(SIGUSR1, &action, nullptr), 0);
  ASSERT_NO_FATAL_FAILURE(MakeServer());
  for (int i = 1; i <= 2; ++i) {
    const pthread_t self = pthread_self();
    std::thread other = Meanwhile([self] { pthread_kill(self, SIGUSR1); });
    EXPECT_THAT(RunFor(kPatience), StopsBy(Cause::kInterrupted));
    other.join();
    EXPECT_EQ(signals, i);
  }
  ExpectServes();
}

TEST_P(WakeTest, WithoutWaitingItIsIdle) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(MakeServer());
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(Run({.wait = false}), StopsWith(BPFGRANT_STOP_IDLE));
    EXPECT_EQ(memory().seen, 0u);
  }
  // What is there is taken before it says so.
  Write(0, "x");
  EXPECT_THAT(Run({.wait = false}), StopsWith(BPFGRANT_STOP_IDLE));
  EXPECT_EQ(memory().seen, 1u);
  // And it can sleep again.
  EXPECT_THAT(RunFor(kMoment), StopsBy(Cause::kDeadline));
  ExpectServes();
}

TEST_P(WakeTest, TheEventFdSaysWhenToRun) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(MakeServer());
  EXPECT_THAT(Run({.wait = false}), StopsWith(BPFGRANT_STOP_IDLE));
  Signalled(std::chrono::milliseconds(0));
  EXPECT_FALSE(Signalled(kMoment));
  for (uint64_t i = 1; i <= 3; ++i) {
    std::thread other = Meanwhile([this] { Write(0, "x"); });
    while (memory().seen < i) {
      ASSERT_TRUE(Signalled(kPatience)) << i;
      EXPECT_THAT(Run({.wait = false}), StopsWith(BPFGRANT_STOP_IDLE));
    }
    other.join();
  }
  EXPECT_EQ(memory().seen, 3u);
  ExpectServes();
}

TEST_P(WakeTest, AWakeIsSeenByTheEventFd) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(MakeServer());
  EXPECT_THAT(Run({.wait = false}), StopsWith(BPFGRANT_STOP_IDLE));
  Signalled(std::chrono::milliseconds(0));
  std::thread other = Meanwhile([&] { EXPECT_TRUE(loop().Wake(9).ok()); });
  EXPECT_TRUE(Signalled(kPatience));
  EXPECT_THAT(Run({.wait = false}), WokenWith(9));
  other.join();
  ExpectServes();
}

}  // namespace
}  // namespace bpfgrant::test
