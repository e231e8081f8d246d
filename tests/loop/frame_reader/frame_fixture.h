// Streams of frames for the loop `frame_reader`, what came of them, and what a
// plain parser says should have come.

#ifndef TESTS_LOOP_FRAME_READER_FRAME_FIXTURE_H_
#define TESTS_LOOP_FRAME_READER_FRAME_FIXTURE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bpfgrant/programs/frame_reader.h"
#include "client/bpfgrant/loop.h"
#include "proto/wire/unique_fd.h"
#include "tests/loop/place.h"
// Behind the generated one.
#include "frame_reader.h"

namespace bpfgrant::test {

struct Frame {
  uint32_t worker = 0;
  std::string body;
  bool operator==(const Frame&) const = default;
};

// How a connection ended.
struct Ending {
  frame_event_kind kind = FRAME_END;
  uint32_t worker = 0;
  uint32_t length = 0;
  bool operator==(const Ending&) const = default;
};

// All that came from one connection, or should have.
struct Received {
  std::vector<Frame> frames;
  std::optional<Ending> ending;
  bool operator==(const Received&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Received& received);

// A frame as it is sent; `length` other than the body's makes it a wrong one.
std::string Encode(uint32_t worker, const std::string& body,
                   std::optional<uint32_t> length = std::nullopt);
// A body of so many bytes that differs from others by `seed`.
std::string Body(size_t length, uint32_t seed);
// What the bytes of a stream mean, if it ends behind them.
Received Parse(const std::string& bytes, uint32_t workers, uint32_t longest);

class FrameReaderTest : public PlaceTest {
 protected:
  FrameReaderTest() : PlaceTest("frame_reader") {}

  static constexpr uint32_t kWorkers = 4;

  // Both modes, for tests that do not care: sets up the loop anew for each.
  static const std::vector<frame_reader_mode>& Modes();
  // Small classes, so that edges are near: bodies up to 32, 128, 1024, 8192 and
  // 65536 bytes; chunks of 256 KiB.
  static frame_reader_config Config(frame_reader_mode mode);

  // Makes the loop and its slabs. Use with ASSERT_NO_FATAL_FAILURE.
  void Open(const frame_reader_config& config, Loop::Options options = {});
  // A socket for connection `number`; the test writes at the other end. `fd`:
  // that one instead of a socket.
  void Connect(uint32_t number, std::optional<int> fd = std::nullopt);
  // Writes as much as the socket takes; how many bytes that was.
  size_t Send(uint32_t number, const std::string& bytes, size_t from = 0);
  void Close(uint32_t number) { peers_.erase(number); }

  // Runs the loop until it has nothing to do, takes what it announces, and
  // gives places back unless they are held. The last stop.
  Loop::Stop Pump();
  Loop::Stop RunOnce(bool wait = false);
  // Takes events; how many.
  size_t Take();
  void GiveBack();
  // Sends all of it, and pumps as often as it takes.
  void SendAll(uint32_t number, const std::string& bytes);

  Loop& loop() { return *loop_; }
  frame_reader_memory& memory() { return *memory_; }
  RingBuffer& events() { return *events_; }
  const Received& Of(uint32_t number) { return received_[number]; }
  void Forget(uint32_t number) { received_.erase(number); }
  // Checks that this came of the connection's stream; it was closed.
  void ExpectParsed(uint32_t number, const std::string& bytes);

  // Places are kept until GiveBack.
  bool hold_ = false;
  // The places of the frames, in order of arrival.
  std::vector<uint32_t> places_;

 private:
  void TakeOne(const frame_event& event);

  std::vector<std::byte> slabs_;
  std::optional<Loop> loop_;
  std::optional<RingBuffer> events_;
  frame_reader_memory* memory_ = nullptr;
  std::map<uint32_t, UniqueFd> sockets_, peers_;
  std::map<uint32_t, Received> received_;
  std::vector<uint32_t> held_;
};

}  // namespace bpfgrant::test

#endif  // TESTS_LOOP_FRAME_READER_FRAME_FIXTURE_H_
