// Maps that are turned over while a loop runs. Its steps can sleep, so that no
// grace period waits for them: the entry counts them instead.

#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "client/bpfgrant/loop.h"
#include "client/bpfgrant/swappable_map.h"
#include "gtest/gtest.h"
#include "proto/refusal/refusal.h"
#include "tests/harness/as_nobody.h"
#include "tests/harness/kernel_features.h"
#include "tests/harness/skip.h"
#include "tests/loop/rotate/turning.h"

namespace bpfgrant::test {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

// The catalog of a daemon that NobodyTest starts itself.
[[maybe_unused]] const int catalog =
    setenv("BPFGRANT_TEST_CATALOG", TURNING_CATALOG, /*replace=*/1);

class LoopRotateTest : public NobodyTest {
 protected:
  LoopRotateTest() : NobodyTest("turning") {}

  void SetUp() override {
    BPFGRANT_REQUIRE_KERNEL(KernelHasLoops(),
                            "io_uring loops (struct io_uring_bpf_ops)");
    NobodyTest::SetUp();
  }
  void TearDown() override { End(); }

  // The loop, in a thread that does nothing else.
  void Begin() {
    runner_ = std::thread([this] {
      const absl::Cleanup failed = [this] { failed_.store(HasFailure()); };
      auto loop =
          Loop::Create(&connection(), {.program = "turning",
                                       .interface = "turning/1",
                                       .where = Loop::Where::kKernelOnly});
      ASSERT_TRUE(loop.ok()) << loop.status();
      memory_ = loop->memory_as<turning_memory>();
      loop_.store(&*loop);
      while (!stop_.load()) {
        const auto stop = loop->Run({});
        ASSERT_TRUE(stop.ok()) << stop.status();
        ASSERT_EQ(stop->why, BPFGRANT_STOP_DONE) << Loop::Describe(*stop);
      }
    });
    while (loop_.load() == nullptr && !failed_.load()) {
      std::this_thread::sleep_for(milliseconds(1));
    }
    ASSERT_FALSE(failed_.load());
    for (const char* name : {"counts", "others"}) {
      auto map = SwappableMap::Of(grant(), name);
      ASSERT_TRUE(map.ok()) << map.status();
      maps_.push_back(*std::move(map));
    }
  }
  void End() {
    if (!runner_.joinable()) return;
    stop_.store(true);
    if (memory_ != nullptr)
      __atomic_store_n(&memory_->stop, 1, __ATOMIC_RELEASE);
    runner_.join();
  }

  Grant& grant() { return *loop_.load()->grant(); }
  SwappableMap& counts() { return maps_[0]; }
  SwappableMap& others() { return maps_[1]; }
  absl::Status RotateBoth(milliseconds deadline = milliseconds(30'000)) {
    return Rotate(grant(), {&counts(), &others()}, deadline);
  }

  static int Bpf(int command, int map, turning_count* count) {
    uint32_t zero = 0;
    bpf_attr attributes{};
    attributes.map_fd = static_cast<uint32_t>(map);
    attributes.key = reinterpret_cast<uintptr_t>(&zero);
    attributes.value = reinterpret_cast<uintptr_t>(count);
    return static_cast<int>(
        syscall(SYS_bpf, command, &attributes, sizeof(attributes)));
  }
  static turning_count Read(int map) {
    turning_count count{};
    EXPECT_EQ(Bpf(BPF_MAP_LOOKUP_ELEM, map, &count), 0) << strerror(errno);
    return count;
  }
  static void Clear(int map) {
    turning_count count{};
    EXPECT_EQ(Bpf(BPF_MAP_UPDATE_ELEM, map, &count), 0) << strerror(errno);
  }
  uint64_t StepsSoFar() {
    return Read(counts().current()).steps + Read(counts().spare()).steps;
  }

  // Such that a step takes about `time`; returns how long it does.
  milliseconds SetWorkFor(milliseconds time) {
    for (uint32_t work = 1 << 10;; work = std::min(2 * work, kMost)) {
      __atomic_store_n(&memory_->work, work, __ATOMIC_RELEASE);
      // One that began before may be under way.
      uint64_t steps = StepsSoFar();
      while (StepsSoFar() < steps + 2) std::this_thread::yield();
      steps = StepsSoFar();
      const auto begin = Clock::now();
      while (StepsSoFar() == steps) std::this_thread::yield();
      const auto took =
          std::chrono::duration_cast<milliseconds>(Clock::now() - begin);
      if (took >= time || work == kMost) return took;
    }
  }

  // How often an old map changed after it was given up, with steps of about
  // `time`.
  int CountChanges(int turns, milliseconds time) {
    const milliseconds step = SetWorkFor(time);
    int changes = 0;
    for (int i = 0; i < turns; ++i) {
      const absl::Status status = RotateBoth();
      EXPECT_TRUE(status.ok()) << status;
      const turning_count before = Read(counts().spare());
      std::this_thread::sleep_for(2 * step + milliseconds(1));
      const turning_count after = Read(counts().spare());
      changes += std::memcmp(&before, &after, sizeof(before)) != 0;
      if (changes == 0) {
        // Turned over together: what began with one began with the other.
        EXPECT_EQ(after.steps, Read(others().spare()).steps) << i;
      }
      Clear(counts().spare());
      Clear(others().spare());
    }
    return changes;
  }

  static constexpr uint32_t kMost = TURNING_WORK_MOST;
  std::thread runner_;
  std::atomic<Loop*> loop_{nullptr};
  std::atomic<bool> stop_{false};
  std::atomic<bool> failed_{false};
  turning_memory* memory_ = nullptr;
  std::vector<SwappableMap> maps_;
};

TEST_F(LoopRotateTest, NoStepHasAnOldMapAfterwards) {
  BPFGRANT_AS_NOBODY();
  ASSERT_NO_FATAL_FAILURE(Begin());
  EXPECT_EQ(CountChanges(20, milliseconds(4)), 0);
  EXPECT_EQ(CountChanges(3, milliseconds(200)), 0);
}

class LoopRotateByGracePeriodTest : public LoopRotateTest {
 protected:
  std::vector<std::string> Without() override {
    return {"rotate_counts_steps"};
  }
};

// Which waits for no step: one that is longer than it goes on.
TEST_F(LoopRotateByGracePeriodTest, AStepHasAnOldMapAfterwards) {
  BPFGRANT_AS_NOBODY();
  ASSERT_NO_FATAL_FAILURE(Begin());
  EXPECT_GT(CountChanges(5, milliseconds(500)), 0);
}

TEST_F(LoopRotateTest, ADeadlineIsKeptAndCanBeWaitedBeyond) {
  BPFGRANT_AS_NOBODY();
  ASSERT_NO_FATAL_FAILURE(Begin());
  const milliseconds step = SetWorkFor(milliseconds(200));
  absl::Status status = RotateBoth(milliseconds(1));
  for (int i = 0; i < 50 && status.ok(); ++i)
    status = RotateBoth(milliseconds(1));
  ASSERT_EQ(ReasonOf(status), v1::REASON_STILL_READ) << status;
  EXPECT_EQ(ReasonOf(RotateBoth(milliseconds(1))), v1::REASON_BUSY);
  const auto waited = grant().Rotate({}, milliseconds(30'000));
  ASSERT_TRUE(waited.ok()) << waited.status();
  const turning_count before = Read(counts().spare());
  std::this_thread::sleep_for(step);
  const turning_count after = Read(counts().spare());
  EXPECT_EQ(std::memcmp(&before, &after, sizeof(before)), 0);
}

// Between runs, and in steps that do nothing.
TEST_F(LoopRotateTest, WhileItBeginsAndEnds) {
  BPFGRANT_AS_NOBODY();
  ASSERT_NO_FATAL_FAILURE(Begin());
  __atomic_store_n(&memory_->stop, 1, __ATOMIC_RELEASE);
  for (int i = 0; i < 20; ++i) {
    const absl::Status status = RotateBoth();
    EXPECT_TRUE(status.ok()) << status;
  }
}

}  // namespace
}  // namespace bpfgrant::test
