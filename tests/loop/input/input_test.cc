// A loop's step drains what its process writes into a user ring buffer.

#include <sys/eventfd.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <thread>

#include "client/bpfgrant/loop.h"
#include "client/bpfgrant/user_ring_buffer.h"
#include "gtest/gtest.h"
#include "proto/wire/unique_fd.h"
#include "tests/harness/as_nobody.h"
#include "tests/harness/kernel_features.h"
#include "tests/harness/skip.h"
#include "tests/loop/input/feed.h"

namespace bpfgrant::test {
namespace {

// The catalog of a daemon that NobodyTest starts itself.
[[maybe_unused]] const int catalog =
    setenv("BPFGRANT_TEST_CATALOG", FEED_CATALOG, /*replace=*/1);

class InputTest : public NobodyTest {
 protected:
  InputTest() : NobodyTest("feed") {}

  void SetUp() override {
    BPFGRANT_REQUIRE_KERNEL(KernelHasLoops(),
                            "io_uring loops (struct io_uring_bpf_ops)");
    NobodyTest::SetUp();
    if (!IsNobody() || HasFatalFailure()) return;
    auto loop =
        Loop::Create(&connection(), {.program = "feed",
                                     .interface = "feed/1",
                                     .where = Loop::Where::kKernelOnly});
    ASSERT_TRUE(loop.ok()) << loop.status();
    loop_.emplace(*std::move(loop));
    bell_ = UniqueFd(eventfd(0, EFD_CLOEXEC));
    memory().bell = bell_.get();
    memory().counter_at = reinterpret_cast<uintptr_t>(&memory().counter);
    const auto handle = loop_->grant()->Find("input");
    ASSERT_TRUE(handle.ok()) << handle.status();
    auto input = UserRingBuffer::Map(**handle);
    ASSERT_TRUE(input.ok()) << input.status();
    input_.emplace(*std::move(input));
  }

  void Write(uint64_t value) {
    auto sample = input_->ReserveBlocking(
        sizeof(value),
        std::chrono::steady_clock::now() + std::chrono::seconds(30));
    ASSERT_TRUE(sample.ok()) << sample.status();
    std::memcpy(sample->data(), &value, sizeof(value));
    input_->Submit(*sample);
  }
  void Ring() {
    const uint64_t one = 1;
    EXPECT_EQ(write(bell_.get(), &one, sizeof(one)), 8);
  }
  feed_memory& memory() { return *loop_->memory_as<feed_memory>(); }

  std::optional<Loop> loop_;
  std::optional<UserRingBuffer> input_;
  UniqueFd bell_;
};

TEST_F(InputTest, ItsStepDrainsWhatWasSubmitted) {
  BPFGRANT_AS_NOBODY();
  for (uint64_t i = 1; i <= 10; ++i) Write(i);
  Write(FEED_END);
  const auto stop = loop_->Run({});
  ASSERT_TRUE(stop.ok()) << stop.status();
  EXPECT_EQ(stop->why, BPFGRANT_STOP_DONE) << Loop::Describe(*stop);
  EXPECT_EQ(memory().samples, 10u);
  EXPECT_EQ(memory().sum, 55u);
  EXPECT_EQ(input_->pending(), 0u);
}

// The ring buffer has room for 256: the producer waits for the loop's drains.
TEST_F(InputTest, AProducerWaitsForALoopThatSleeps) {
  BPFGRANT_AS_NOBODY();
  constexpr uint64_t kSamples = 2000;
  std::thread producer([this] {
    for (uint64_t i = 1; i <= kSamples; ++i) {
      Write(i);
      if (i % 100 == 0) Ring();
    }
    Write(FEED_END);
    Ring();
  });
  const auto stop = loop_->Run({});
  producer.join();
  ASSERT_TRUE(stop.ok()) << stop.status();
  EXPECT_EQ(stop->why, BPFGRANT_STOP_DONE) << Loop::Describe(*stop);
  EXPECT_EQ(memory().samples, kSamples);
  EXPECT_EQ(memory().sum, kSamples * (kSamples + 1) / 2);
  EXPECT_GT(memory().bells, 1u);
  EXPECT_EQ(loop_->enters(), 1u);
}

}  // namespace
}  // namespace bpfgrant::test
