// Pairs of sockets with the loop `relay` between them, and the test at both far
// ends.

#ifndef TESTS_LOOP_RELAY_RELAY_FIXTURE_H_
#define TESTS_LOOP_RELAY_RELAY_FIXTURE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "client/bpfgrant/loop.h"
#include "proto/wire/unique_fd.h"
#include "relay.h"
#include "tests/loop/place.h"

namespace bpfgrant::test {

// Two ends of a connection: a Unix socket pair, or TCP over loopback.
struct Ends {
  UniqueFd one, other;
};
Ends MakeUnix();
Ends MakeTcp();

// Bytes that differ at each place, by `seed`.
std::string Bytes(size_t length, uint32_t seed);

class RelayTest : public PlaceTest {
 protected:
  RelayTest() : PlaceTest("relay") {}

  // Makes the loop. Use with ASSERT_NO_FATAL_FAILURE.
  void Open(Loop::Options options = {}, uint32_t flags = 0);
  // A pair: the test has near_[number] and far_[number].
  void Connect(uint32_t number, Ends (*make)() = MakeUnix);
  // Runs the loop until it has nothing to do. The last stop.
  Loop::Stop Pump();

  // The same until `condition` holds, or too long: an end is passed on by a
  // thread of the kernel's. Whether it holds.
  bool PumpUntil(const std::function<bool()>& condition);
  // The same until all pairs have ended.
  bool PumpUntilDone();

  // As much as the socket takes of `bytes` from `from` on.
  size_t Send(int fd, const std::string& bytes, size_t from = 0);
  // All that is there.
  std::string Receive(int fd);
  // That nothing more will come, and nothing has.
  bool AtEnd(int fd);
  // Moves bytes both ways at once, through pumping; what came must be them.
  void Exchange(int one, int other, const std::string& there,
                const std::string& back);

  Loop& loop() { return *loop_; }
  relay_memory& memory() { return *memory_; }
  const relay_pair& Pair(uint32_t number) { return memory_->pairs[number]; }
  int Near(uint32_t number) { return near_.at(number).get(); }
  int Far(uint32_t number) { return far_.at(number).get(); }

  std::map<uint32_t, UniqueFd> near_, far_;

 private:
  std::map<uint32_t, Ends> relayed_;
  std::optional<Loop> loop_;
  relay_memory* memory_ = nullptr;
};

}  // namespace bpfgrant::test

#endif  // TESTS_LOOP_RELAY_RELAY_FIXTURE_H_
