// A process that rewrites the memory and the ring while the loop runs. What it
// gets of that is its own problem; the loop has to end, and to work afterwards.

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <random>
#include <thread>

#include "proto/wire/unique_fd.h"
#include "tests/loop/chain/chain_fixture.h"

namespace bpfgrant::test {
namespace {

constexpr uint32_t kItems = 200;
constexpr int kRuns = 100;

// Does `harm` again and again in another thread.
class Meanwhile {
 public:
  using Random = std::mt19937_64;

  explicit Meanwhile(std::function<void(Random&)> harm)
      : thread_([this, harm = std::move(harm)] {
          Random random(4711);
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

// The completion queue as the kernel maps it to whoever has the ring.
class CompletionQueue {
 public:
  static constexpr unsigned kEntries = 128;

  explicit CompletionQueue(int ring)
      : map_(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_CQ_RING)) {
    EXPECT_NE(map_, MAP_FAILED);
  }
  ~CompletionQueue() { munmap(map_, kBytes); }

  volatile io_uring_cqe& entry(uint64_t i) {
    auto* entries =
        reinterpret_cast<volatile io_uring_cqe*>(static_cast<char*>(map_) + 64);
    return entries[i % kEntries];
  }

 private:
  static constexpr size_t kBytes = 64 + kEntries * sizeof(io_uring_cqe);
  void* map_;
};

class ChainHostileTest : public ChainTest {
 protected:
  void SetUp() override {
    ChainTest::SetUp();
    if (IsSkipped() || !InPlace()) return;
    ASSERT_NO_FATAL_FAILURE(Open());
    null_.reset(open("/dev/null", O_WRONLY | O_CLOEXEC));
  }

  // Requests that do no harm and complete at once, whatever becomes of them: no
  // byte of what is written to /dev/null is looked at. All kinds of operands
  // and rules.
  void SetWrites() {
    const chain_operand null = Is(null_.get());
    Set({Template(IORING_OP_NOP, {Is(-1)}),
         Template(IORING_OP_WRITE,
                  {null, From(CHAIN_FIELD, 1), Is(8), From(CHAIN_SUM, 1)},
                  {On({1, 6}, CHAIN_GO_TO, 1), On(kAny, CHAIN_REST)}),
         Template(
             IORING_OP_WRITE,
             {null, From(CHAIN_WORD, 1), From(CHAIN_FIELD, 2),
              From(CHAIN_ITEM, 0, 7)},
             {On(kAny, CHAIN_NEXT, 0, CHAIN_FULL), On(kZero, CHAIN_GO_TO, 0)}),
         Template(IORING_OP_NOP, {Is(-1)}, {On(kNegative, CHAIN_END)})},
        kItems, 32);
    for (chain_item& item : memory().items) item = {{1, 2, 3, 4}};
    for (auto& words : memory().words) words[1] = 4096;
    memory().program.patience = 3;
    memory().program.requests = 4000;
  }

  // That it ends by itself, time after time.
  void ExpectEnds() {
    for (int run = 0; run < kRuns; ++run) {
      SetWrites();
      const Loop::Stop stop = Run();
      ASSERT_TRUE(stop.why == BPFGRANT_STOP_DONE ||
                  stop.why == BPFGRANT_STOP_ERROR)
          << Loop::Describe(stop);
    }
  }
  void ExpectWorks() {
    SetWrites();
    ExpectDone();
    EXPECT_EQ(outcome().done, kItems);
    EXPECT_EQ(outcome().requests, 4 * kItems);
    EXPECT_EQ(outcome().bytes, 11 * kItems);
  }

  UniqueFd null_;
};

// All of it but what could name another file or another kind of operation.
TEST_P(ChainHostileTest, MemoryThatChanges) {
  BPFGRANT_IN_PLACE();
  ExpectWorks();
  {
    const Meanwhile harm([this](Meanwhile::Random& random) {
      const uint64_t value = random();
      chain_template& text = memory().templates[value % 4];
      auto* parts =
          reinterpret_cast<volatile uint8_t*>(&text.parts[CHAIN_ADDRESS]);
      const size_t behind = sizeof(text) - offsetof(chain_template, parts) -
                            sizeof(chain_operand);
      parts[(value >> 8) % behind] = value >> 32;
      *const_cast<volatile uint32_t*>(&memory().program.first +
                                      (value >> 40) % 6) = value >> 50;
      memory().items[value % kItems].fields[value >> 62] = random();
      memory().words[value % CHAIN_LANES][1] = random();
    });
    ASSERT_NO_FATAL_FAILURE(ExpectEnds());
  }
  ExpectWorks();
}

TEST_P(ChainHostileTest, OtherOperations) {
  BPFGRANT_IN_PLACE();
  {
    const Meanwhile harm([this](Meanwhile::Random& random) {
      constexpr uint8_t kOperations[] = {IORING_OP_NOP,
                                         IORING_OP_WRITE,
                                         IORING_OP_SEND,
                                         IORING_OP_FSYNC,
                                         IORING_OP_URING_CMD,
                                         IORING_OP_WRITE_FIXED,
                                         255};
      const uint64_t value = random();
      chain_template& text = memory().templates[value % 4];
      text.opcode = kOperations[(value >> 8) % std::size(kOperations)];
      text.sqe_flags = value >> 16 & (value >> 24) & 0x31;
      text.buffer = value >> 32 & (value >> 36) & 1;
    });
    ASSERT_NO_FATAL_FAILURE(ExpectEnds());
  }
  ExpectWorks();
}

TEST_P(ChainHostileTest, ResultsThatLie) {
  BPFGRANT_IN_PLACE();
  {
    CompletionQueue queue(loop().ring_fd());
    const Meanwhile harm([&](Meanwhile::Random& random) {
      const uint64_t value = random();
      queue.entry(value).res = static_cast<__s32>(value >> 32);
    });
    ASSERT_NO_FATAL_FAILURE(ExpectEnds());
  }
  ExpectWorks();
}

// Whose completions are lost or invented waits for ever, or gets an error; its
// deadline still works, and what it waits for costs nothing.
// In the kernel only: in the process, whoever rewrites the completion queue
// deceives nobody but itself, and on Linux 6.1 may then wait for ever.
TEST_P(ChainHostileTest, CompletionsOfOthers) {
  BPFGRANT_IN_PLACE();
  if (!InKernel()) return;
  for (int run = 0; run < 5; ++run) {
    ASSERT_NO_FATAL_FAILURE(Open());
    CompletionQueue queue(loop().ring_fd());
    const Meanwhile harm([&](Meanwhile::Random& random) {
      const uint64_t value = random();
      // Lanes that there are, with tickets that there may be.
      queue.entry(value).user_data = (value >> 8) % 80 | (value >> 16) % 1000
                                                             << 8;
    });
    SetWrites();
    const auto stop = loop().Run({.deadline = std::chrono::steady_clock::now() +
                                              std::chrono::milliseconds(300)});
    ASSERT_TRUE(stop.ok()) << stop.status();
    EXPECT_TRUE(stop->cause == Loop::Stop::Cause::kLoop ||
                stop->cause == Loop::Stop::Cause::kDeadline)
        << Loop::Describe(*stop);
    EXPECT_LT(loop().status().requests, 8000u);
  }
}

// A flood of completions that another ring posts does not keep it busy without
// end.
TEST_P(ChainHostileTest, FloodFromAnotherRing) {
  BPFGRANT_IN_PLACE();
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  const UniqueFd ours(pair[0]), theirs(pair[1]);
  constexpr unsigned kBatch = 64;
  io_uring ring;
  ASSERT_EQ(io_uring_queue_init(kBatch, &ring, 0), 0);
  {
    const Meanwhile harm([&, target = loop().ring_fd()](Meanwhile::Random&) {
      for (unsigned i = 0; i < kBatch; ++i) {
        io_uring_prep_msg_ring(io_uring_get_sqe(&ring), target, 0, i, 0);
      }
      io_uring_submit_and_wait(&ring, kBatch);
      io_uring_cq_advance(&ring, kBatch);
    });
    Set({Template(IORING_OP_POLL_ADD, {Is(ours.get())}, {}, 0, POLLIN)});
    ExpectError(ELOOP);
    EXPECT_EQ(outcome().reason, CHAIN_STRANGE);
    EXPECT_EQ(outcome().requests, 1u);
  }
  io_uring_queue_exit(&ring);
}

BPFGRANT_PLACES(ChainHostileTest);

}  // namespace
}  // namespace bpfgrant::test
