#include "daemon/broker/event_loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bpfgrant::broker {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using Clock = std::chrono::steady_clock;

UniqueFd ReadableEvent() { return UniqueFd(eventfd(1, EFD_CLOEXEC)); }

TEST(EventLoopTest, RunsUntilExit) {
  EventLoop loop;
  loop.Post([&] { loop.Exit(7); });
  EXPECT_EQ(loop.Run(), 7);
}

TEST(EventLoopTest, TellsWhatHappensToAnFd) {
  EventLoop loop;
  const UniqueFd fd = ReadableEvent();
  uint32_t seen = 0;
  const EventLoop::Source source =
      loop.Io(fd.get(), EPOLLIN, [&](uint32_t events) {
        seen = events;
        loop.Exit(0);
      });
  EXPECT_TRUE(source.active());
  loop.Run();
  EXPECT_EQ(seen, static_cast<uint32_t>(EPOLLIN));
}

TEST(EventLoopTest, WhatCannotBeWatchedIsNotActive) {
  EventLoop loop;
  EXPECT_FALSE(loop.Io(-1, EPOLLIN, [](uint32_t) {}).active());
}

TEST(EventLoopTest, PausedSourceIsSilentUntilItGoesOn) {
  EventLoop loop;
  const UniqueFd fd = ReadableEvent();
  int calls = 0;
  EventLoop::Source source = loop.Io(fd.get(), EPOLLIN, [&](uint32_t) {
    ++calls;
    loop.Exit(0);
  });
  source.SetEvents(0);
  const EventLoop::Source timer = loop.Timer(milliseconds(20), [&] {
    EXPECT_EQ(calls, 0);
    source.SetEvents(EPOLLIN);
  });
  loop.Run();
  EXPECT_EQ(calls, 1);
}

TEST(EventLoopTest, SourceCanBeDestroyedInItsOwnCallback) {
  EventLoop loop;
  const UniqueFd fd = ReadableEvent();
  int calls = 0;
  // What the callback has captured must live until it returns.
  auto captured = std::make_shared<int>(42);
  const std::weak_ptr<int> watched = captured;
  EventLoop::Source source;
  source = loop.Io(fd.get(), EPOLLIN, [&, captured](uint32_t) {
    source = EventLoop::Source();
    ++calls;
    EXPECT_EQ(*captured, 42);
  });
  captured.reset();
  const EventLoop::Source timer =
      loop.Timer(milliseconds(20), [&] { loop.Exit(0); });
  loop.Run();
  EXPECT_EQ(calls, 1);
  EXPECT_FALSE(source.active());
  EXPECT_TRUE(watched.expired());
}

// As a session that ends another one in the same turn.
TEST(EventLoopTest, SourceDestroyedByAnotherIsNotCalled) {
  EventLoop loop;
  const UniqueFd one = ReadableEvent();
  const UniqueFd two = ReadableEvent();
  EventLoop::Source first;
  EventLoop::Source second;
  int calls = 0;
  first = loop.Io(one.get(), EPOLLIN, [&](uint32_t) {
    ++calls;
    first = EventLoop::Source();
    second = EventLoop::Source();
  });
  second = loop.Io(two.get(), EPOLLIN, [&](uint32_t) {
    ++calls;
    first = EventLoop::Source();
    second = EventLoop::Source();
  });
  const EventLoop::Source timer =
      loop.Timer(milliseconds(20), [&] { loop.Exit(0); });
  loop.Run();
  EXPECT_EQ(calls, 1);
}

TEST(EventLoopTest, SourceCanBeReplacedInItsOwnCallback) {
  EventLoop loop;
  std::vector<int> order;
  EventLoop::Source timer;
  timer = loop.Timer(milliseconds(1), [&] {
    order.push_back(1);
    timer = loop.Timer(milliseconds(1), [&] {
      order.push_back(2);
      loop.Exit(0);
    });
  });
  loop.Run();
  EXPECT_THAT(order, ElementsAre(1, 2));
}

TEST(EventLoopTest, TimerFiresOnceAndNotTooEarly) {
  EventLoop loop;
  int calls = 0;
  const auto began = Clock::now();
  const EventLoop::Source timer = loop.Timer(milliseconds(30), [&] {
    ++calls;
    EXPECT_GE(Clock::now() - began, milliseconds(30));
  });
  const EventLoop::Source end =
      loop.Timer(milliseconds(400), [&] { loop.Exit(0); });
  loop.Run();
  EXPECT_EQ(calls, 1);
}

// The time counts from the call, however long the turn has lasted by then.
TEST(EventLoopTest, TimerSetLateInATurnIsNotTooEarly) {
  EventLoop loop;
  Clock::time_point began;
  EventLoop::Source timer;
  loop.Post([&] {
    std::this_thread::sleep_for(milliseconds(100));
    began = Clock::now();
    timer = loop.Timer(milliseconds(50), [&] { loop.Exit(0); });
  });
  loop.Run();
  EXPECT_GE(Clock::now() - began, milliseconds(50));
}

TEST(EventLoopTest, IdleComesAfterEverythingElse) {
  EventLoop loop;
  const UniqueFd fd = ReadableEvent();
  std::vector<int> order;
  const EventLoop::Source idle = loop.WhenIdle([&] {
    order.push_back(2);
    loop.Exit(0);
  });
  EventLoop::Source source;
  source = loop.Io(fd.get(), EPOLLIN, [&](uint32_t) {
    order.push_back(1);
    source = EventLoop::Source();
  });
  loop.Run();
  EXPECT_THAT(order, ElementsAre(1, 2));
}

TEST(EventLoopTest, RunsWhatOtherThreadsPostInOrder) {
  EventLoop loop;
  constexpr int kEach = 1000;
  std::vector<int> next(2);
  int done = 0;
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 2; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < kEach; ++i) {
        loop.Post([&, thread, i] {
          EXPECT_EQ(next[thread]++, i);
          if (++done == 2 * kEach) loop.Exit(0);
        });
      }
    });
  }
  loop.Run();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(done, 2 * kEach);
}

TEST(EventLoopTest, WorkThatPostsDoesNotKeepTheRestWaiting) {
  EventLoop loop;
  const UniqueFd fd = ReadableEvent();
  std::function<void()> again = [&] { loop.Post([&] { again(); }); };
  again();
  const EventLoop::Source source =
      loop.Io(fd.get(), EPOLLIN, [&](uint32_t) { loop.Exit(3); });
  EXPECT_EQ(loop.Run(), 3);
}

TEST(EventLoopTest, RunsSignalCallbacks) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  ASSERT_EQ(pthread_sigmask(SIG_BLOCK, &set, nullptr), 0);
  EventLoop loop;
  const EventLoop::Source source = loop.Signal(SIGUSR1, [&] { loop.Exit(5); });
  ASSERT_TRUE(source.active());
  raise(SIGUSR1);
  EXPECT_EQ(loop.Run(), 5);
}

}  // namespace
}  // namespace bpfgrant::broker
