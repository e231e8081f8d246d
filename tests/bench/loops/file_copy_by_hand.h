// What one would write with liburing where the loop file_copy is used.

#ifndef TESTS_BENCH_LOOPS_FILE_COPY_BY_HAND_H_
#define TESTS_BENCH_LOOPS_FILE_COPY_BY_HAND_H_

#include <cstdint>
#include <vector>

#include "tests/bench/loops/chain_by_hand.h"

namespace bpfgrant::bench {

// Copies a file whose size is known; `depth` blocks at once, both files and the
// buffers registered.
class HandCopy {
 public:
  enum class Way {
    kRounds,  // a block is read, then written, and the next one begun
    kLinked,  // the read and the write of a block linked
  };
  HandCopy(Way way, int from, int to, uint32_t block, unsigned depth);

  // Bytes written.
  uint64_t Run(uint64_t size);
  uint64_t enters() const { return ring_.enters(); }

 private:
  struct Lane {
    bool writing;
    uint32_t length;
    uint32_t done;  // of the read or of the write
    uint64_t offset;
  };

  void Prepare(unsigned lane);
  uint64_t RunRounds(uint64_t size);
  uint64_t RunLinked(uint64_t size);

  const Way way_;
  const uint32_t block_;
  const unsigned depth_;
  HandRing ring_;
  std::vector<char> buffers_;
  std::vector<Lane> lanes_;
};

}  // namespace bpfgrant::bench

#endif  // TESTS_BENCH_LOOPS_FILE_COPY_BY_HAND_H_
