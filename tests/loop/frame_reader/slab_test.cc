// Where bodies land, what happens when there is no room, and wrong input.

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/loop/frame_reader/frame_fixture.h"

namespace bpfgrant::test {
namespace {

using ::testing::Optional;

class SlabTest : public FrameReaderTest {};
BPFGRANT_PLACES(SlabTest);

// Of a slab, as Config has them.
constexpr uint32_t kOfWorker = 64 + 64 + 32 + 8 + 4;
uint32_t ClassOf(uint32_t slab) {
  slab %= kOfWorker;
  return slab < 64 ? 0 : slab < 128 ? 1 : slab < 160 ? 2 : slab < 168 ? 3 : 4;
}

TEST_P(SlabTest, OfItsWorkerAndTheLeastClassThatHoldsIt) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Open(Config(FRAME_READER_DIRECT)));
  Connect(0);
  const uint32_t edges[] = {32, 128, 1024, 8192, 65536};
  std::string stream;
  for (uint32_t i = 0; i < 5; ++i) {
    for (uint32_t worker = 0; worker < kWorkers; ++worker) {
      for (const uint32_t length : {edges[i] - 1, edges[i], edges[i] + 1}) {
        if (length > 65536) continue;
        SCOPED_TRACE(length);
        const std::string frame = Encode(worker, Body(length, worker));
        stream += frame;
        SendAll(0, frame);
        ASSERT_FALSE(places_.empty());
        EXPECT_EQ(places_.back() / kOfWorker, worker);
        EXPECT_EQ(ClassOf(places_.back()), i + (length > edges[i]));
      }
    }
  }
  Close(0);
  Pump();
  ExpectParsed(0, stream);
}

TEST_P(SlabTest, LengthZeroTakesNone) {
  BPFGRANT_IN_PLACE();
  for (const auto mode : Modes()) {
    SCOPED_TRACE(mode);
    ASSERT_NO_FATAL_FAILURE(Open(Config(mode)));
    Connect(0);
    hold_ = true;
    std::string stream;
    for (int i = 0; i < 500; ++i) stream += Encode(i % 4, "");
    SendAll(0, stream);
    EXPECT_EQ(memory().totals.starved, 0u);
    Close(0);
    Pump();
    ExpectParsed(0, stream);
  }
}

TEST_P(SlabTest, TooLong) {
  BPFGRANT_IN_PLACE();
  for (const auto mode : Modes()) {
    SCOPED_TRACE(mode);
    frame_reader_config config = Config(mode);
    const uint32_t longest =
        mode == FRAME_READER_DIRECT ? 65536 : config.chunk_bytes - 8;
    ASSERT_NO_FATAL_FAILURE(Open(config));
    uint32_t number = 0;
    for (const uint32_t length : {longest + 1, 1u << 31, ~0u}) {
      SCOPED_TRACE(length);
      // By itself, and behind a good one.
      for (const std::string& before : {std::string(), Encode(1, "good")}) {
        const std::string stream = before + Encode(2, "rest", length);
        Connect(++number);
        SendAll(number, stream);
        ExpectParsed(number, stream);
      }
    }
    // The others are not touched by it.
    Connect(0);
    SendAll(0, Encode(3, Body(longest, 1)));
    Close(0);
    Pump();
    ExpectParsed(0, Encode(3, Body(longest, 1)));
  }
}

TEST_P(SlabTest, TooLongByTheConfig) {
  BPFGRANT_IN_PLACE();
  for (const auto mode : Modes()) {
    SCOPED_TRACE(mode);
    frame_reader_config config = Config(mode);
    config.max_length = 100;
    ASSERT_NO_FATAL_FAILURE(Open(config));
    Connect(0);
    SendAll(0, Encode(0, Body(100, 1)) + Encode(3, Body(101, 2)));
    EXPECT_EQ(Of(0).frames.size(), 1u);
    EXPECT_THAT(Of(0).ending, Optional(Ending{FRAME_TOO_LONG, 3, 101}));
  }
}

TEST_P(SlabTest, NoSuchWorker) {
  BPFGRANT_IN_PLACE();
  for (const auto mode : Modes()) {
    SCOPED_TRACE(mode);
    ASSERT_NO_FATAL_FAILURE(Open(Config(mode)));
    uint32_t number = 0;
    for (const uint32_t worker : {kWorkers, 1u << 31, ~0u}) {
      const std::string stream =
          Encode(3, "good") + Encode(worker, "bad") + Encode(0, "lost");
      Connect(++number);
      SendAll(number, stream);
      ExpectParsed(number, stream);
    }
  }
}

// One class of one worker is used up; the stream waits, and goes on.
TEST_P(SlabTest, OutOfSlabs) {
  BPFGRANT_IN_PLACE();
  for (const uint32_t length : {20u, 1000u, 8000u, 60000u}) {
    SCOPED_TRACE(length);
    ASSERT_NO_FATAL_FAILURE(Open(Config(FRAME_READER_DIRECT)));
    const uint32_t there = length == 20     ? 64
                           : length == 1000 ? 32
                           : length == 8000 ? 8
                                            : 4;
    Connect(0);
    Connect(1);
    hold_ = true;
    std::string stream;
    for (uint32_t i = 0; i < there + 3; ++i)
      stream += Encode(2, Body(length, i));
    size_t sent = 0;
    for (int i = 0; i < 10; ++i) {
      sent += Send(0, stream, sent);
      EXPECT_EQ(Pump().why, sent > there * (length + 8) + 8
                                ? BPFGRANT_STOP_PASSED
                                : BPFGRANT_STOP_IDLE);
    }
    EXPECT_EQ(Of(0).frames.size(), there);
    EXPECT_EQ(memory().totals.starved, 1u);
    // Others have theirs.
    ASSERT_EQ(Send(1, Encode(1, Body(length, 1))), length + 8);
    Pump();
    EXPECT_EQ(Of(1).frames.size(), 1u);
    GiveBack();
    hold_ = false;
    for (int i = 0; i < 10; ++i) {
      if (sent < stream.size()) sent += Send(0, stream, sent);
      Pump();
    }
    Close(0);
    Pump();
    ExpectParsed(0, stream);
    EXPECT_EQ(memory().totals.starved, 0u);
  }
}

TEST_P(SlabTest, OutOfChunks) {
  BPFGRANT_IN_PLACE();
  frame_reader_config config = Config(FRAME_READER_BULK);
  config.chunk_bytes = 1 << 20;  // four of them
  ASSERT_NO_FATAL_FAILURE(Open(config));
  Connect(0);
  hold_ = true;
  std::string stream;
  for (uint32_t i = 0; i < 60; ++i) stream += Encode(1, Body(100'000, i));
  size_t sent = 0;
  while (memory().totals.starved == 0) {
    sent += Send(0, stream, sent);
    ASSERT_LT(sent, stream.size());
    Pump();
  }
  EXPECT_EQ(Of(0).frames.size(), 40u);
  hold_ = false;
  GiveBack();
  SendAll(0, stream.substr(sent));
  Close(0);
  Pump();
  ExpectParsed(0, stream);
  EXPECT_GT(memory().totals.copied, 0u);
}

TEST_P(SlabTest, WhatIsGivenBackTwiceOrNeverTakenCountsOnce) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Open(Config(FRAME_READER_DIRECT)));
  Connect(0);
  hold_ = true;
  for (const uint32_t place :
       {0u, 0u, 5u, kOfWorker * kWorkers, 4095u, 4096u, ~0u}) {
    ASSERT_TRUE(frame_reader_tell(&memory(), FRAME_READER_GIVE, 1, place));
  }
  std::string stream;
  for (uint32_t i = 0; i < 64; ++i) stream += Encode(0, Body(32, i));
  SendAll(0, stream);
  ASSERT_EQ(places_.size(), 64u);
  EXPECT_EQ(std::set<uint32_t>(places_.begin(), places_.end()).size(), 64u);
  // A second time, all at once.
  const std::vector<uint32_t> places = places_;
  GiveBack();
  for (const uint32_t place : places) {
    ASSERT_TRUE(frame_reader_tell(&memory(), FRAME_READER_GIVE, 1, place));
  }
  SendAll(0, stream);
  ASSERT_EQ(places_.size(), 128u);
  EXPECT_EQ(std::set<uint32_t>(places_.begin() + 64, places_.end()).size(),
            64u);
  SendAll(0, Encode(0, "x"));
  EXPECT_EQ(places_.size(), 128u);
  EXPECT_EQ(memory().totals.starved, 1u);
}

}  // namespace
}  // namespace bpfgrant::test
