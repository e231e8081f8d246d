// UserRingBuffer over memory that this test reads as the kernel would
// (kernel/bpf/ringbuf.c). What the kernel itself does with it:
// tests/privileged/user_ring_buffer.

#include <linux/bpf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "client/bpfgrant/user_ring_buffer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class ClientUserRingBufferTest : public ::testing::Test {
 protected:
  void SetUp() override {
    page_ = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    file_ = UniqueFd(memfd_create("ring", MFD_CLOEXEC));
    ASSERT_TRUE(file_.valid());
    // The data twice: a memfd is not mapped twice by itself.
    ASSERT_EQ(ftruncate(file_.get(), static_cast<off_t>(4 * page_)), 0);
    kernel_ =
        static_cast<std::byte*>(mmap(nullptr, 4 * page_, PROT_READ | PROT_WRITE,
                                     MAP_SHARED, file_.get(), 0));
    ASSERT_NE(static_cast<void*>(kernel_), MAP_FAILED);
    auto ring = UserRingBuffer::Map(file_.get(), page_);
    ASSERT_TRUE(ring.ok()) << ring.status();
    ring_.emplace(*std::move(ring));
  }
  void TearDown() override { munmap(kernel_, 4 * page_); }

  unsigned long& consumer() {
    return *reinterpret_cast<unsigned long*>(kernel_);
  }
  unsigned long& producer() {
    return *reinterpret_cast<unsigned long*>(kernel_ + page_);
  }
  uint32_t& Header() {
    return *reinterpret_cast<uint32_t*>(kernel_ + 2 * page_ +
                                        consumer() % page_);
  }
  // bpf_user_ringbuf_drain.
  std::vector<std::string> Drain() {
    std::vector<std::string> samples;
    while (consumer() != producer()) {
      const uint32_t word = Header();
      if ((word & BPF_RINGBUF_BUSY_BIT) != 0) break;
      const uint32_t length = word & ~BPF_RINGBUF_DISCARD_BIT;
      if ((word & BPF_RINGBUF_DISCARD_BIT) == 0) {
        samples.emplace_back(reinterpret_cast<char*>(&Header()) + 8, length);
      }
      consumer() += (length + 8 + 7) & ~7u;
    }
    return samples;
  }

  absl::Span<std::byte> Reserve(size_t bytes) {
    auto sample = ring_->Reserve(bytes);
    EXPECT_TRUE(sample.ok()) << sample.status();
    return sample.ok() ? *sample : absl::Span<std::byte>();
  }
  void Write(std::string_view text) {
    const absl::Span<std::byte> sample = Reserve(text.size());
    std::memcpy(sample.data(), text.data(), text.size());
    ring_->Submit(sample);
  }

  size_t page_ = 0;
  UniqueFd file_;
  std::byte* kernel_ = nullptr;
  std::optional<UserRingBuffer> ring_;
};

TEST_F(ClientUserRingBufferTest, SamplesOfAnyLength) {
  Write("");
  Write("a");
  Write("eight to");
  Write("and more than that");
  EXPECT_EQ(ring_->pending(), 8u + 16u + 16u + 32u);
  EXPECT_THAT(Drain(), ElementsAre("", "a", "eight to", "and more than that"));
  EXPECT_EQ(ring_->pending(), 0u);
}

TEST_F(ClientUserRingBufferTest, DiscardedOnesAreSkipped) {
  ring_->Discard(Reserve(100));
  Write("seen");
  EXPECT_THAT(Drain(), ElementsAre("seen"));
}

TEST_F(ClientUserRingBufferTest, ReservedOnesHoldUpThoseBehind) {
  const auto first = Reserve(4), second = Reserve(4);
  std::memcpy(second.data(), "2222", 4);
  ring_->Submit(second);
  EXPECT_THAT(Drain(), IsEmpty());
  std::memcpy(first.data(), "1111", 4);
  ring_->Submit(first);
  EXPECT_THAT(Drain(), ElementsAre("1111", "2222"));
}

TEST_F(ClientUserRingBufferTest, ExactlyFull) {
  EXPECT_EQ(ring_->max_sample_bytes(), page_ - 8);
  ring_->Discard(Reserve(page_ - 16));
  EXPECT_TRUE(absl::IsResourceExhausted(ring_->Reserve(1).status()));
  ring_->Discard(Reserve(0));
  EXPECT_EQ(ring_->pending(), page_);
  EXPECT_TRUE(absl::IsResourceExhausted(ring_->Reserve(0).status()));
  Drain();
  ring_->Discard(Reserve(page_ - 8));
  EXPECT_EQ(ring_->pending(), page_);
}

TEST_F(ClientUserRingBufferTest, WhatNeverFitsIsTheCallersMistake) {
  EXPECT_TRUE(absl::IsInvalidArgument(ring_->Reserve(page_ - 7).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(ring_->Reserve(SIZE_MAX).status()));
  EXPECT_EQ(ring_->pending(), 0u);
}

TEST_F(ClientUserRingBufferTest, PositionsThatCannotBe) {
  producer() = 4;
  EXPECT_TRUE(absl::IsDataLoss(ring_->Reserve(1).status()));
  EXPECT_TRUE(absl::IsDataLoss(ring_->DiscardAbandoned().status()));
  producer() = page_ + 8;
  EXPECT_TRUE(absl::IsDataLoss(ring_->Reserve(1).status()));
  producer() = 0;
  consumer() = 8;
  EXPECT_TRUE(absl::IsDataLoss(ring_->Reserve(1).status()));
  EXPECT_TRUE(absl::IsDataLoss(ring_->DiscardAbandoned().status()));
}

TEST_F(ClientUserRingBufferTest, PositionsGoAroundAt64Bits) {
  consumer() = producer() = 0ul - 16;
  Write("across");
  Write("the end");
  EXPECT_THAT(Drain(), ElementsAre("across", "the end"));
  EXPECT_EQ(producer(), 16u);
}

TEST_F(ClientUserRingBufferTest, AbandonedOnesAreDiscarded) {
  Write("before");
  Reserve(100);
  Write("between");
  Reserve(0);
  Write("behind");
  auto discarded = ring_->DiscardAbandoned();
  ASSERT_TRUE(discarded.ok()) << discarded.status();
  EXPECT_EQ(*discarded, 2u);
  EXPECT_THAT(Drain(), ElementsAre("before", "between", "behind"));
  EXPECT_EQ(*ring_->DiscardAbandoned(), 0u);
}

TEST_F(ClientUserRingBufferTest, AnAbandonedLengthThatCannotBe) {
  Reserve(8);
  Header() = BPF_RINGBUF_BUSY_BIT | 4096;
  EXPECT_TRUE(absl::IsDataLoss(ring_->DiscardAbandoned().status()));
}

TEST_F(ClientUserRingBufferTest, SizesThatAreNone) {
  for (const size_t bytes : {size_t{0}, size_t{100}, page_ / 2, page_ + 8}) {
    EXPECT_TRUE(absl::IsInvalidArgument(
        UserRingBuffer::Map(file_.get(), bytes).status()))
        << bytes;
  }
  EXPECT_TRUE(absl::IsInternal(UserRingBuffer::Map(-1, page_).status()));
}

}  // namespace
}  // namespace bpfgrant
