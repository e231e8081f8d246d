// User ring buffers, written by a client without privilege wrongly, at once and
// too late. What the kernel guards, with its own answer; what the library
// guards, with the twin that goes around it.

#include <linux/bpf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <thread>

#include "client/bpfgrant/grant.h"
#include "client/bpfgrant/user_ring_buffer.h"
#include "gtest/gtest.h"
#include "tests/harness/as_nobody.h"
#include "tests/privileged/user_ring_buffer/drainer.h"
#include "tests/privileged/user_ring_buffer/fixture.h"

namespace bpfgrant::test {
namespace {

TEST_F(UserRingBufferTest, AFloodOfDiscardedSamplesEnds) {
  BPFGRANT_AS_NOBODY();
  ASSERT_NO_FATAL_FAILURE(Fill(2 * kMostSamples + 5, /*discard=*/true));
  EXPECT_EQ(Drain(), 0);
  EXPECT_EQ(ring_->pending(), (kMostSamples + 5) * 8);
  EXPECT_EQ(Drain(), 0);
  EXPECT_EQ(Drain(), 0);
  EXPECT_EQ(ring_->pending(), 0u);
  EXPECT_EQ(page().samples, 0u);
}

TEST_F(UserRingBufferTest, AFloodOfSamplesEnds) {
  BPFGRANT_AS_NOBODY();
  ASSERT_NO_FATAL_FAILURE(Fill(kMostSamples + 5, /*discard=*/false));
  EXPECT_EQ(Drain(), static_cast<int64_t>(kMostSamples));
  EXPECT_EQ(Drain(), 5);
}

// --- Lies --------------------------------------------------------------------

TEST_F(UserRingBufferTest, AMisalignedProducer) {
  BPFGRANT_AS_NOBODY();
  Write(1);
  Producer() += 4;
  EXPECT_EQ(Drain(), -EINVAL);
  EXPECT_EQ(page().samples, 0u);
  EXPECT_TRUE(absl::IsDataLoss(ring_->Reserve(8).status()));
  Producer() -= 4;
  EXPECT_EQ(Drain(), 1);
}

TEST_F(UserRingBufferTest, AProducerBehindTheConsumer) {
  BPFGRANT_AS_NOBODY();
  Write(1);
  EXPECT_EQ(Drain(), 1);
  Producer() -= 8;
  EXPECT_EQ(Drain(), 0);
  EXPECT_TRUE(absl::IsDataLoss(ring_->Reserve(8).status()));
  Producer() += 8;
  Write(2);
  EXPECT_EQ(Drain(), 1);
}

TEST_F(UserRingBufferTest, ALengthBeyondTheProducer) {
  BPFGRANT_AS_NOBODY();
  Write(1);
  HeaderAt(0) = 4096;
  EXPECT_EQ(Drain(), -EINVAL);
  EXPECT_EQ(page().samples, 0u);
  HeaderAt(0) = 8;
  EXPECT_EQ(Drain(), 1);
}

TEST_F(UserRingBufferTest, ALengthBeyondTheRing) {
  BPFGRANT_AS_NOBODY();
  HeaderAt(0) = DRAINER_BYTES;
  Producer() = DRAINER_BYTES + 8;
  EXPECT_EQ(Drain(), -E2BIG);
  EXPECT_EQ(page().samples, 0u);
  EXPECT_TRUE(absl::IsDataLoss(ring_->Reserve(8).status()));
}

// A producer a whole ring ahead shows the program what is there anyway, and
// ends.
TEST_F(UserRingBufferTest, AProducerFarAhead) {
  BPFGRANT_AS_NOBODY();
  Producer() = 1ULL << 62;
  // Headers of zeros: samples of no length, one after the other.
  EXPECT_EQ(Drain(), static_cast<int64_t>(kMostSamples));
  EXPECT_EQ(page().bytes, 0u);
  EXPECT_TRUE(absl::IsDataLoss(ring_->Reserve(8).status()));
}

TEST_F(UserRingBufferTest, ASampleTooLargeForADynptr) {
  BPFGRANT_AS_NOBODY();
  constexpr size_t kTooLarge = 1 << 24;
  EXPECT_TRUE(absl::IsInvalidArgument(ring_->Reserve(kTooLarge).status()));
  EXPECT_EQ(ring_->max_sample_bytes(), kTooLarge - 1);
  auto largest = ring_->Reserve(kTooLarge - 1);
  ASSERT_TRUE(largest.ok()) << largest.status();
  ring_->Submit(*largest);
  EXPECT_EQ(Drain(), 1);
  // The twin: who goes around the library has stopped the ring for good.
  const unsigned long at = Producer();
  HeaderAt(at) = kTooLarge;
  Producer() = at + kTooLarge + 8;
  Write(3);
  EXPECT_EQ(Drain(), -E2BIG);
  EXPECT_EQ(Drain(), -E2BIG);
  EXPECT_EQ(page().samples, 1u);
}

// The program that reads a sample twice can read two things: those of the
// catalog copy it once.
TEST_F(UserRingBufferTest, SamplesThatChangeWhileTheyAreDrained) {
  BPFGRANT_AS_NOBODY();
  constexpr unsigned kSamples = 32;
  page().spin = 1000;
  std::atomic<bool> done{false};
  std::atomic<unsigned long> where{Producer()};
  // Bytes, and the bits beside the lengths.
  std::thread scribbler([&] {
    for (uint32_t i = 0; !done; ++i) {
      const unsigned long at = where;
      for (unsigned sample = 0; sample < kSamples; ++sample) {
        HeaderAt(at + 16 * sample + 8) = i;
      }
      HeaderAt(at + 16 * (i % kSamples)) =
          sizeof(uint64_t) |
          ((i & 64) != 0 ? uint32_t{BPF_RINGBUF_DISCARD_BIT} : 0u);
    }
  });
  const auto until = Clock::now() + std::chrono::seconds(20);
  while (page().torn == 0 && Clock::now() < until) {
    const unsigned long at = Producer();
    for (unsigned i = 0; i < kSamples; ++i) Write(i);
    where = at;
    const int64_t drained = Drain();
    ASSERT_GE(drained, 0);
    ASSERT_EQ(ring_->pending(), 0u);
  }
  done = true;
  scribbler.join();
  EXPECT_GT(page().torn, 0u);
}

// Positions and lengths by chance, with drains all the while: they answer.
TEST_F(UserRingBufferTest, NoiseInTheRing) {
  BPFGRANT_AS_NOBODY();
  std::atomic<bool> done{false};
  std::thread scribbler([&] {
    uint64_t state = 88172645463325252u;
    while (!done) {
      state ^= state << 13;
      state ^= state >> 7;
      state ^= state << 17;
      const unsigned long consumer = Producer() - ring_->pending();
      HeaderAt((consumer + state % 64 * 8) & ~7UL) =
          static_cast<uint32_t>(state >> 32) & (state & 1 ? 0xff : ~0u);
      __atomic_store_n(&Producer(), consumer + (state >> 52), __ATOMIC_RELAXED);
    }
  });
  for (int i = 0; i < 500; ++i) {
    const int64_t drained = Drain();
    ASSERT_TRUE(drained >= 0 || drained == -EINVAL || drained == -E2BIG)
        << drained;
  }
  done = true;
  scribbler.join();
}

// --- At once, twice, too late ------------------------------------------------

TEST_F(UserRingBufferTest, TwoDrainsAtOnceAreOneAndABusy) {
  BPFGRANT_AS_NOBODY();
  std::atomic<bool> done{false};
  page().spin = 1 << 20;
  std::thread other([&] {
    while (!done) RunProgram();
  });
  const auto until = Clock::now() + std::chrono::seconds(20);
  uint64_t written = 0;
  while (__atomic_load_n(&page().busy, __ATOMIC_RELAXED) == 0 &&
         Clock::now() < until) {
    Write(++written);
    RunProgram();
  }
  done = true;
  other.join();
  page().spin = 0;
  RunProgram();
  EXPECT_GT(page().busy, 0u);
  // Nothing was lost, nothing seen twice.
  EXPECT_EQ(page().samples, written);
}

TEST_F(UserRingBufferTest, AProducerThatDiesHalfWay) {
  BPFGRANT_AS_NOBODY();
  Write(1);
  const pid_t child = fork();
  if (child == 0) {
    const auto sample = ring_->Reserve(100);
    _exit(sample.ok() ? 0 : 1);
  }
  int how = 0;
  ASSERT_EQ(waitpid(child, &how, 0), child);
  ASSERT_EQ(how, 0);
  ASSERT_NO_FATAL_FAILURE(MapRing());
  Write(2);
  EXPECT_EQ(Drain(), 1);
  // The twin: as long as nobody does anything, all behind it waits.
  EXPECT_EQ(Drain(), 0);
  const auto discarded = ring_->DiscardAbandoned();
  ASSERT_TRUE(discarded.ok()) << discarded.status();
  EXPECT_EQ(*discarded, 1u);
  EXPECT_EQ(Drain(), 1);
  EXPECT_EQ(page().first, 2u);
  EXPECT_EQ(ring_->DiscardAbandoned().value(), 0u);
}

// The kernel's own page is the kernel's.
TEST_F(UserRingBufferTest, TheConsumersPositionIsReadOnly) {
  BPFGRANT_AS_NOBODY();
  EXPECT_EQ(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED,
                 Input().fd.get(), 0),
            MAP_FAILED);
  EXPECT_EQ(errno, EPERM);
  void* const page =
      mmap(nullptr, 4096, PROT_READ, MAP_SHARED, Input().fd.get(), 0);
  ASSERT_NE(page, MAP_FAILED);
  EXPECT_NE(mprotect(page, 4096, PROT_READ | PROT_WRITE), 0);
  munmap(page, 4096);
}

TEST_F(UserRingBufferTest, AfterTheGrantEndedNothingIsDrained) {
  BPFGRANT_AS_NOBODY();
  Write(1);
  const int program = dup(grant_->program_fd());
  const int input = dup(Input().fd.get());
  ASSERT_TRUE(grant_->Release().ok());
  // The ring is still there to be written; nobody reads it.
  auto ring = UserRingBuffer::Map(input, DRAINER_BYTES);
  ASSERT_TRUE(ring.ok()) << ring.status();
  const size_t pending = ring->pending();
  const char data[64] = {};
  bpf_attr attributes{};
  attributes.test.prog_fd = static_cast<uint32_t>(program);
  attributes.test.data_in = reinterpret_cast<uintptr_t>(data);
  attributes.test.data_size_in = sizeof(data);
  EXPECT_EQ(
      syscall(SYS_bpf, BPF_PROG_TEST_RUN, &attributes, sizeof(attributes)), 0);
  EXPECT_EQ(ring->pending(), pending);
  EXPECT_EQ(page().runs, 0u);
  close(program);
  close(input);
}

TEST_F(UserRingBufferTest, OtherHandlesAreNone) {
  BPFGRANT_AS_NOBODY();
  EXPECT_TRUE(absl::IsInvalidArgument(
      UserRingBuffer::Map(**grant_->Find("page")).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      UserRingBuffer::Map(Input().fd.get(), 12345).status()));
  // Smaller than it is: fine; larger: the kernel refuses.
  EXPECT_TRUE(absl::IsInternal(
      UserRingBuffer::Map(Input().fd.get(), 2 * DRAINER_BYTES).status()));
}

}  // namespace
}  // namespace bpfgrant::test
