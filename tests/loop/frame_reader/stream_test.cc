// What comes of streams, however they are cut.

#include <sys/socket.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/loop/frame_reader/frame_fixture.h"

namespace bpfgrant::test {
namespace {

class StreamTest : public FrameReaderTest {};
BPFGRANT_PLACES(StreamTest);

std::string SomeFrames() {
  return Encode(0, Body(5, 1)) + Encode(3, "") + Encode(1, Body(40, 2)) +
         Encode(2, Body(1, 3));
}

TEST_P(StreamTest, FramesArriveWhole) {
  BPFGRANT_IN_PLACE();
  for (const auto mode : Modes()) {
    SCOPED_TRACE(mode);
    ASSERT_NO_FATAL_FAILURE(Open(Config(mode)));
    Connect(7);
    SendAll(7, SomeFrames());
    EXPECT_EQ(Of(7).frames.size(), 4u);
    EXPECT_FALSE(Of(7).ending.has_value());
    Close(7);
    EXPECT_EQ(Pump().why, BPFGRANT_STOP_DONE);
    ExpectParsed(7, SomeFrames());
    EXPECT_EQ(memory().totals.frames, 4u);
    EXPECT_EQ(memory().totals.bytes, 46u);
    EXPECT_EQ(memory().totals.open, 0u);
  }
}

TEST_P(StreamTest, CutAtEachByte) {
  BPFGRANT_IN_PLACE();
  const std::string bytes = SomeFrames();
  for (const auto mode : Modes()) {
    SCOPED_TRACE(mode);
    ASSERT_NO_FATAL_FAILURE(Open(Config(mode)));
    for (uint32_t cut = 1; cut < bytes.size(); ++cut) {
      SCOPED_TRACE(cut);
      Connect(cut);
      SendAll(cut, bytes.substr(0, cut));
      SendAll(cut, bytes.substr(cut));
      Close(cut);
      Pump();
      ExpectParsed(cut, bytes);
    }
  }
}

TEST_P(StreamTest, ByteByByte) {
  BPFGRANT_IN_PLACE();
  const std::string bytes =
      SomeFrames() + Encode(2, Body(9000, 5)) + SomeFrames();
  for (const auto mode : Modes()) {
    SCOPED_TRACE(mode);
    ASSERT_NO_FATAL_FAILURE(Open(Config(mode)));
    Connect(0);
    // The long frame's middle would only take time.
    for (size_t at = 0; at < bytes.size();) {
      const size_t piece = at == 200 ? 8500 : 1;
      SendAll(0, bytes.substr(at, piece));
      at += piece;
    }
    Close(0);
    EXPECT_EQ(Pump().why, BPFGRANT_STOP_DONE);
    ExpectParsed(0, bytes);
  }
}

TEST_P(StreamTest, PeerClosesInMidFrame) {
  BPFGRANT_IN_PLACE();
  const std::string bytes = Encode(1, Body(10, 1)) + Encode(2, Body(5000, 2));
  for (const auto mode : Modes()) {
    SCOPED_TRACE(mode);
    ASSERT_NO_FATAL_FAILURE(Open(Config(mode)));
    uint32_t number = 0;
    for (const size_t length : {0, 1, 7, 8, 9, 17, 18, 19, 25, 26, 27, 5025}) {
      SCOPED_TRACE(length);
      for (const bool together : {false, true}) {
        Connect(++number);
        Send(number, bytes.substr(0, length));
        if (!together) Pump();
        Close(number);
        Pump();
        ExpectParsed(number, bytes.substr(0, length));
      }
    }
    EXPECT_EQ(memory().totals.open, 0u);
  }
}

// A mix of lengths that goes through all the ways that mode DIRECT has, too.
std::string RandomStream(std::mt19937& random, size_t bytes) {
  std::string stream;
  uint32_t seed = random();
  while (stream.size() < bytes) {
    static constexpr uint32_t kLimits[] = {0,   1,    16,    100,
                                           600, 4200, 20000, 65536};
    // Runs of the same kind, so that it settles on one way now and then.
    const uint32_t limit = kLimits[random() % 8];
    for (uint32_t n = 1 + random() % 40; n > 0 && stream.size() < bytes; --n) {
      const uint32_t length = limit == 0 ? 0 : random() % (limit + 1);
      stream += Encode(random() % 4, Body(length, ++seed));
    }
  }
  return stream;
}

TEST_P(StreamTest, RandomStreamsOfManyConnections) {
  BPFGRANT_IN_PLACE();
  constexpr uint32_t kConnections = 12;
  for (const auto mode : Modes()) {
    SCOPED_TRACE(mode);
    std::mt19937 random(20);
    ASSERT_NO_FATAL_FAILURE(Open(Config(mode)));
    std::vector<std::string> streams;
    std::vector<size_t> sent(kConnections);
    for (uint32_t i = 0; i < kConnections; ++i) {
      Connect(i);
      streams.push_back(RandomStream(random, 300'000));
      // Ends anywhere.
      streams.back().resize(streams.back().size() - random() % 100);
    }
    for (uint32_t open = kConnections; open > 0 && !HasFailure();) {
      const uint32_t i = random() % kConnections;
      if (sent[i] == streams[i].size()) continue;
      const size_t piece = 1 + random() % (random() % 4 == 0 ? 100'000 : 200);
      sent[i] += Send(i, streams[i].substr(0, sent[i] + piece), sent[i]);
      if (random() % 3 == 0) Pump();
      if (sent[i] == streams[i].size()) {
        Close(i);
        --open;
      }
    }
    EXPECT_EQ(Pump().why, BPFGRANT_STOP_DONE);
    for (uint32_t i = 0; i < kConnections; ++i) ExpectParsed(i, streams[i]);
  }
}

TEST_P(StreamTest, AsManyConnectionsAsThereCanBe) {
  BPFGRANT_IN_PLACE();
  for (const auto mode : Modes()) {
    SCOPED_TRACE(mode);
    frame_reader_config config = Config(mode);
    // A chunk for each.
    config.chunk_bytes = FRAME_READER_CHUNK_LEAST;
    ASSERT_NO_FATAL_FAILURE(Open(config));
    std::string streams[FRAME_READER_CONNECTIONS];
    for (uint32_t i = 0; i < FRAME_READER_CONNECTIONS; ++i) Connect(i);
    for (int round = 0; round < 3; ++round) {
      for (uint32_t i = 0; i < FRAME_READER_CONNECTIONS; ++i) {
        const std::string bytes = Encode(i % 4, Body(i, i + round)) +
                                  Encode(round, Body(i % 3, round));
        ASSERT_EQ(Send(i, bytes), bytes.size());
        streams[i] += bytes;
      }
      Pump();
    }
    for (uint32_t i = 0; i < FRAME_READER_CONNECTIONS; ++i) Close(i);
    EXPECT_EQ(Pump().why, BPFGRANT_STOP_DONE);
    for (uint32_t i = 0; i < FRAME_READER_CONNECTIONS; ++i)
      ExpectParsed(i, streams[i]);
  }
}

}  // namespace
}  // namespace bpfgrant::test
