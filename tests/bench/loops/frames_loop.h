// The loop frame_reader, run in either place, as a reader that gives each body
// to the same sink as those of frames_by_hand.h.

#ifndef TESTS_BENCH_LOOPS_FRAMES_LOOP_H_
#define TESTS_BENCH_LOOPS_FRAMES_LOOP_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "client/bpfgrant/loop.h"
#include "tests/bench/loops/frames_by_hand.h"

namespace bpfgrant::bench {

class LoopReader {
 public:
  // In the kernel if there is a connection. Bodies of `length` bytes, or of any
  // length up to HandReader::kLongest with 0.
  LoopReader(Connection* connection, frame_reader_mode mode, uint32_t length,
             const std::vector<int>& sockets);

  // Reads until the sink has so many frames.
  void Run(uint64_t frames);
  const FrameSink& sink() const { return sink_; }
  uint64_t enters() const { return loop_->enters(); }
  uint64_t copied() const { return memory_->totals.copied; }

 private:
  void Configure(frame_reader_mode mode, uint32_t length);
  void Take();
  void Give(uint32_t place, uint32_t count);

  std::optional<Loop> loop_;
  std::optional<RingBuffer> events_;
  std::vector<std::byte> slabs_;
  std::vector<uint64_t> offsets_;  // of bodies, by slab
  frame_reader_memory* memory_ = nullptr;
  FrameSink sink_;
};

}  // namespace bpfgrant::bench

#endif  // TESTS_BENCH_LOOPS_FRAMES_LOOP_H_
