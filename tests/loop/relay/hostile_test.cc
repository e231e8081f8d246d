// A process that rewrites the memory and the ring while the loop runs. What it
// relays then is its own problem; the loop has to end, and to work afterwards.

#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <random>
#include <thread>

#include "gtest/gtest.h"
#include "tests/loop/relay/relay_fixture.h"

namespace bpfgrant::test {
namespace {

using Random = std::mt19937_64;
using Clock = std::chrono::steady_clock;

// Does `harm` again and again in another thread.
class Meanwhile {
 public:
  explicit Meanwhile(std::function<void(Random&)> harm)
      : thread_([this, harm = std::move(harm)] {
          Random random(99);
          while (!stop_) harm(random);
        }) {}
  ~Meanwhile() {
    stop_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

class RelayHostileTest : public RelayTest {
 protected:
  void RunFor(std::chrono::milliseconds time) {
    const auto end = Clock::now() + time;
    const std::string bytes = Bytes(60'000, 1);
    for (uint32_t i = 0; Clock::now() < end && !HasFailure(); ++i) {
      const uint32_t number = i % 8;
      near_.erase(number);
      far_.erase(number);
      Connect(number);
      Send(Near(number), bytes);
      Send(Far(number), bytes);
      const auto before = Clock::now();
      auto stop =
          loop().Run({.deadline = before + std::chrono::milliseconds(20)});
      ASSERT_TRUE(stop.ok()) << stop.status();
      ASSERT_LT(Clock::now() - before, std::chrono::seconds(20));
      Receive(Far(number));
    }
  }
};
BPFGRANT_PLACES(RelayHostileTest);

TEST_P(RelayHostileTest, MemoryThatChanges) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Open());
  Connect(0);
  Pump();  // it reads its config, where requests point to
  {
    relay_memory& shared = memory();
    Meanwhile meanwhile([&shared](Random& random) {
      const uint64_t value = random();
      relay_pair& pair = shared.pairs[value % RELAY_PAIRS];
      switch (random() % 4) {
        case 0:
          bpfgrant_write_once(pair.directions[value % 2].received, value);
          break;
        case 1:
          bpfgrant_write_once(pair.ended, static_cast<uint32_t>(value));
          break;
        case 2:
          bpfgrant_write_once(shared.opened[value % RELAY_PAIRS],
                              static_cast<uint32_t>(random()));
          break;
        default:
          bpfgrant_write_once(
              shared.buffers[value % 16][random() % RELAY_BUFFER],
              static_cast<uint8_t>(random()));
      }
    });
    RunFor(std::chrono::seconds(2));
  }
  near_.clear();
  far_.clear();
  Pump();
  Connect(60);
  Exchange(Near(60), Far(60), Bytes(100'000, 1), Bytes(90'000, 2));
}

TEST_P(RelayHostileTest, CompletionsThatAreNone) {
  BPFGRANT_IN_PLACE();
  if (!InKernel()) return;  // in the process the ring is the process's own
  constexpr size_t kBytes = 64 + 512 * sizeof(io_uring_cqe);
  ASSERT_NO_FATAL_FAILURE(Open());
  void* const map = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                         loop().ring_fd(), IORING_OFF_CQ_RING);
  ASSERT_NE(map, MAP_FAILED);
  auto* const cqes =
      reinterpret_cast<io_uring_cqe*>(static_cast<char*>(map) + 64);
  {
    Meanwhile meanwhile([cqes](Random& random) {
      io_uring_cqe& cqe = cqes[random() % 512];
      bpfgrant_write_once(cqe.user_data, random() % 3 << 56 | random() % 20);
      bpfgrant_write_once(cqe.res, static_cast<int>(random() % 40000) - 100);
    });
    RunFor(std::chrono::seconds(2));
  }
  munmap(map, kBytes);
}

}  // namespace
}  // namespace bpfgrant::test
