#include "tests/bench/loops/nop_bench.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/bpfgrant/loop.h"
#include "tests/bench/loops/chain_by_hand.h"
#include "tests/bench/loops/measure.h"
#include "tests/bench/loops/nop.h"

BPFGRANT_NATIVE_LOOP(nop);

namespace bpfgrant::bench {
namespace {

constexpr int kRounds = 5;
constexpr uint32_t kNops = 20'000;

void Abort(const std::string& why) {
  std::fprintf(stderr, "nop: %s\n", why.c_str());
  std::abort();
}

// What one would write with liburing.
class HandNops {
 public:
  explicit HandNops(unsigned lanes) : lanes_(lanes), ring_(NOP_SQ_ENTRIES) {}
  uint64_t Run() {
    uint32_t left = kNops, busy = 0;
    uint64_t taken = 0;
    const auto prepare = [&] {
      if (left == 0) return;
      io_uring_prep_nop(io_uring_get_sqe(ring_.get()));
      --left;
      ++busy;
    };
    for (unsigned i = 0; i < lanes_; ++i) prepare();
    while (busy > 0) {
      ring_.SubmitAndWait(1);
      io_uring_cqe* cqe;
      unsigned head, seen = 0;
      io_uring_for_each_cqe(ring_.get(), head, cqe) {
        ++seen;
        --busy;
        prepare();
      }
      io_uring_cq_advance(ring_.get(), seen);
      taken += seen;
    }
    return taken;
  }
  uint64_t enters() const { return ring_.enters(); }

 private:
  const unsigned lanes_;
  HandRing ring_;
};

// The loop, in the kernel if there is a connection.
class LoopNops {
 public:
  LoopNops(Connection* connection, unsigned lanes, unsigned at_once) {
    auto loop = Loop::Create(
        connection, {.program = "nop",
                     .interface = "nop/1",
                     .where = connection != nullptr ? Loop::Where::kKernelOnly
                                                    : Loop::Where::kProcessOnly,
                     .native = &bpfgrant_native_nop,
                     .sq_entries = NOP_SQ_ENTRIES,
                     .cq_entries = NOP_CQ_ENTRIES,
                     .memory_bytes = sizeof(nop_memory)});
    if (!loop.ok()) Abort(loop.status().ToString());
    loop_.emplace(*std::move(loop));
    memory_ = loop_->memory_as<nop_memory>();
    *memory_ = {.lanes = lanes, .count = kNops, .at_once = at_once};
  }
  uint64_t Run() {
    const auto stop = loop_->Run({});
    if (!stop.ok()) Abort(stop.status().ToString());
    if (stop->why != BPFGRANT_STOP_DONE) Abort(Loop::Describe(*stop));
    return memory_->taken;
  }
  uint64_t enters() const { return loop_->enters(); }

 private:
  std::optional<Loop> loop_;
  nop_memory* memory_ = nullptr;
};

template <typename Way>
Contest::Turn Turn(std::shared_ptr<Way> way) {
  return [way] {
    Spent spent{.jobs = kNops};
    const uint64_t enters = way->enters();
    const Stopwatch stopwatch;
    if (way->Run() != kNops) Abort("another number");
    spent.seconds = stopwatch.seconds();
    spent.switches = stopwatch.switches();
    spent.enters = way->enters() - enters;
    return spent;
  };
}

}  // namespace

void BenchNop(Connection* connection) {
  // Within a step, before it returns; and at most what comes of one submission.
  constexpr unsigned kMany = 256;
  for (const unsigned lanes : {1u, 4u, 16u, 64u}) {
    Contest contest(
        absl::StrCat("a NOP when the last one completed; ", lanes, " at once"),
        "by hand");
    contest.Add("by hand", Turn(std::make_shared<HandNops>(lanes)));
    if (connection != nullptr) {
      contest.Add("loop, kernel",
                  Turn(std::make_shared<LoopNops>(connection, lanes, kMany)));
      contest.Add("loop, kernel, a step each",
                  Turn(std::make_shared<LoopNops>(connection, lanes, lanes)));
    }
    contest.Add("loop, process",
                Turn(std::make_shared<LoopNops>(nullptr, lanes, kMany)));
    contest.Run(kRounds);
  }
}

}  // namespace bpfgrant::bench
