// The loop `chain` for tests, and short ways to write its programs.

#ifndef TESTS_LOOP_CHAIN_CHAIN_FIXTURE_H_
#define TESTS_LOOP_CHAIN_CHAIN_FIXTURE_H_

#include <liburing.h>

#include <climits>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <vector>

#include "bpf-programs/chain/chain.h"
#include "tests/loop/place.h"

namespace bpfgrant::test {

inline chain_operand Is(uint64_t value) { return {.value = value}; }
template <typename T>
chain_operand At(const T* address) {
  return Is(reinterpret_cast<uintptr_t>(address));
}
inline chain_operand From(chain_source source, uint8_t index = 0,
                          int32_t scale = 1, uint64_t value = 0) {
  return {.value = value,
          .scale = scale,
          .source = static_cast<__u8>(source),
          .index = index};
}

// Which results a rule is for.
struct Results {
  int32_t low = INT_MIN, high = INT_MAX;
};
inline constexpr Results kAny = {};
inline constexpr Results kNegative = {INT_MIN, -1};
inline constexpr Results kZero = {0, 0};
inline constexpr Results kPositive = {1, INT_MAX};

inline chain_rule On(Results results, chain_then then, uint8_t target = 0,
                     chain_when when = CHAIN_ANY, unsigned mark = 0) {
  return {results.low,
          results.high,
          static_cast<__u8>(then),
          target,
          static_cast<__u8>(when),
          static_cast<__u8>(mark)};
}

struct Parts {
  chain_operand fd = Is(0), address = Is(0), length = Is(0), offset = Is(0),
                file = Is(0);
};
chain_template Template(uint8_t opcode, const Parts& parts,
                        std::initializer_list<chain_rule> rules = {},
                        uint8_t sqe_flags = 0, uint32_t op_flags = 0);

class ChainTest : public PlaceTest {
 protected:
  ChainTest() : PlaceTest("chain") {}

  // Makes the loop; use with ASSERT_NO_FATAL_FAILURE.
  void Open(Loop::Options options = {});
  Loop& loop() { return *loop_; }
  chain_memory& memory() { return *memory_; }
  const chain_outcome& outcome() { return memory_->outcome; }
  const chain_result& result(size_t item) { return memory_->results[item]; }

  // Writes the program into the memory, with no results yet.
  void Set(const std::vector<chain_template>& templates, uint32_t items = 1,
           uint32_t lanes = 1);
  // Runs it; a failure of the test unless the loop stops by itself.
  Loop::Stop Run();
  // And expects that it is done.
  void ExpectDone();
  // And expects an error with this number.
  void ExpectError(int error);

 private:
  std::optional<Loop> loop_;
  chain_memory* memory_ = nullptr;
};

}  // namespace bpfgrant::test

#endif  // TESTS_LOOP_CHAIN_CHAIN_FIXTURE_H_
