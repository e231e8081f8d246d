// User ring buffers, written by a client without privilege as they should be.

#include "client/bpfgrant/user_ring_buffer.h"

#include <linux/bpf.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include "gtest/gtest.h"
#include "proto/wire/unique_fd.h"
#include "tests/harness/as_nobody.h"
#include "tests/privileged/user_ring_buffer/drainer.h"
#include "tests/privileged/user_ring_buffer/fixture.h"

namespace bpfgrant::test {
namespace {

TEST_F(UserRingBufferTest, ARunDrainsWhatWasSubmitted) {
  BPFGRANT_AS_NOBODY();
  EXPECT_EQ(Drain(), 0);
  Write(7);
  Write(8);
  EXPECT_EQ(ring_->pending(), 32u);
  EXPECT_EQ(Drain(), 2);
  EXPECT_EQ(page().first, 8u);
  EXPECT_EQ(ring_->pending(), 0u);
}

TEST_F(UserRingBufferTest, OrderIsThatOfTheReservations) {
  BPFGRANT_AS_NOBODY();
  auto first = ring_->Reserve(8);
  auto second = ring_->Reserve(8);
  ASSERT_TRUE(first.ok() && second.ok());
  ring_->Submit(*second);
  // What is reserved holds up what is behind it.
  EXPECT_EQ(Drain(), 0);
  ring_->Submit(*first);
  EXPECT_EQ(Drain(), 2);
}

TEST_F(UserRingBufferTest, ExactlyFull) {
  BPFGRANT_AS_NOBODY();
  // Two samples that end where the ring does; not a byte less.
  for (int i = 0; i < 2; ++i) {
    ASSERT_NO_FATAL_FAILURE(Skip(kHalf - 8));
  }
  EXPECT_EQ(ring_->pending(), static_cast<size_t>(DRAINER_BYTES));
  EXPECT_TRUE(absl::IsResourceExhausted(ring_->Reserve(0).status()));
  pollfd writable = {ring_->fd(), POLLOUT, 0};
  EXPECT_EQ(poll(&writable, 1, 0), 0);
  EXPECT_EQ(Drain(), 0);
  EXPECT_EQ(ring_->pending(), 0u);
  EXPECT_EQ(poll(&writable, 1, 0), 1);
  // And across the end.
  Skip(kHalf / 2 - 8);
  Skip(kHalf - 8);
  EXPECT_EQ(Drain(), 0);
  auto sample = ring_->Reserve(kHalf - 8);
  ASSERT_TRUE(sample.ok());
  std::memset(sample->data(), 0x11, sample->size());
  ring_->Submit(*sample);
  EXPECT_EQ(Drain(), 1);
  EXPECT_EQ(page().first, 0x1111111111111111u);
}

// By default the kernel wakes who waits for room when a run took samples, or
// skipped discarded ones; a program can have it otherwise.
TEST_F(UserRingBufferTest, WakesWhoWaitsForRoom) {
  BPFGRANT_AS_NOBODY();
  constexpr milliseconds kPatience(3000), kSoon(2500);
  const auto woken = [&](uint64_t flags, bool discard) {
    page().flags = flags;
    ASSERT_NO_FATAL_FAILURE(FillButEight(discard));
    std::thread drains([this] {
      std::this_thread::sleep_for(milliseconds(200));
      RunProgram();
    });
    const auto began = Clock::now();
    // More than is left: poll(2) would say at once that there is room.
    auto sample = ring_->ReserveBlocking(1024, began + kPatience);
    woken_ = Clock::now() - began < kSoon;
    drains.join();
    // At its deadline it looks once more.
    ASSERT_TRUE(sample.ok()) << sample.status();
    ring_->Discard(*sample);
    RunProgram();
    ASSERT_EQ(ring_->pending(), 0u);
  };
  woken(0, /*discard=*/false);
  EXPECT_TRUE(woken_);
  woken(0, /*discard=*/true);
  EXPECT_TRUE(woken_);
  woken(BPF_RB_NO_WAKEUP, /*discard=*/false);
  EXPECT_FALSE(woken_);
}

TEST_F(UserRingBufferTest, AForcedWakeUpNeedsNoSample) {
  BPFGRANT_AS_NOBODY();
  const UniqueFd poller(epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{};
  event.events = EPOLLOUT | EPOLLET;
  ASSERT_EQ(epoll_ctl(poller.get(), EPOLL_CTL_ADD, ring_->fd(), &event), 0);
  const auto told = [&] {
    return epoll_wait(poller.get(), &event, 1, 200) == 1;
  };
  EXPECT_TRUE(told());  // there is room
  EXPECT_FALSE(told());
  EXPECT_EQ(Drain(), 0);
  EXPECT_FALSE(told());
  page().flags = BPF_RB_FORCE_WAKEUP;
  EXPECT_EQ(Drain(), 0);
  EXPECT_TRUE(told());
}

TEST_F(UserRingBufferTest, ABlockingReservationHasADeadline) {
  BPFGRANT_AS_NOBODY();
  ASSERT_NO_FATAL_FAILURE(FillButEight(/*discard=*/true));
  const auto began = Clock::now();
  const auto sample = ring_->ReserveBlocking(8, began + milliseconds(300));
  EXPECT_TRUE(absl::IsDeadlineExceeded(sample.status())) << sample.status();
  EXPECT_GE(Clock::now() - began, milliseconds(300));
  EXPECT_TRUE(
      absl::IsInvalidArgument(ring_->ReserveBlocking(DRAINER_BYTES).status()));
}

TEST_F(UserRingBufferTest, ACallbackMayEndTheDrain) {
  BPFGRANT_AS_NOBODY();
  for (uint64_t i = 1; i <= 25; ++i) Write(i);
  page().stop_after = 10;
  EXPECT_EQ(Drain(), 10);
  EXPECT_EQ(page().first, 10u);
  EXPECT_EQ(Drain(), 10);
  EXPECT_EQ(Drain(), 5);
  EXPECT_EQ(Drain(), 0);
}

// --- Floods ------------------------------------------------------------------

}  // namespace
}  // namespace bpfgrant::test
