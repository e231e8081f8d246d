// Bytes arrive, ends are passed on, nobody is flooded.

#include <sys/socket.h>

#include <cerrno>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/loop/relay/relay_fixture.h"

namespace bpfgrant::test {
namespace {

BPFGRANT_PLACES(RelayTest);

constexpr auto kMake = {MakeUnix, MakeTcp};

TEST_P(RelayTest, BothWaysAtOnce) {
  BPFGRANT_IN_PLACE();
  for (const auto make : kMake) {
    ASSERT_NO_FATAL_FAILURE(Open());
    Connect(0, make);
    const std::string there = Bytes(3'000'001, 1);
    const std::string back = Bytes(2'000'003, 2);
    Exchange(Near(0), Far(0), there, back);
    EXPECT_EQ(Pair(0).directions[0].received, there.size());
    EXPECT_EQ(Pair(0).directions[0].sent, there.size());
    EXPECT_EQ(Pair(0).directions[1].received, back.size());
    EXPECT_EQ(Pair(0).directions[1].sent, back.size());
    EXPECT_EQ(Pair(0).ended, 0u);
  }
}

TEST_P(RelayTest, OneByteAtATime) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Open());
  Connect(5);
  for (int i = 0; i < 300; ++i) {
    const std::string there(1, static_cast<char>(i));
    Exchange(Near(5), Far(5), there, there);
  }
  EXPECT_EQ(Pair(5).directions[0].sent, 300u);
  EXPECT_EQ(Pair(5).directions[1].sent, 300u);
}

// What the reader does not take stays with the writer: the relay holds a buffer
// of it and no more.
TEST_P(RelayTest, SlowReader) {
  BPFGRANT_IN_PLACE();
  for (const auto make : kMake) {
    ASSERT_NO_FATAL_FAILURE(Open());
    Connect(0, make);
    const std::string bytes = Bytes(64 << 20, 3);
    size_t sent = 0;
    for (int idle = 0; idle < 50; ++idle) {
      const size_t more = Send(Near(0), bytes, sent);
      if (more != 0) idle = 0;
      sent += more;
      ASSERT_LT(sent, bytes.size());
      Pump();
      EXPECT_LE(Pair(0).directions[0].received - Pair(0).directions[0].sent,
                RELAY_BUFFER);
    }
    // The other direction is not held up by that.
    EXPECT_EQ(Send(Far(0), "meanwhile"), 9u);
    Pump();
    EXPECT_EQ(Receive(Near(0)), "meanwhile");
    std::string came;
    for (int idle = 0; idle < 1000 && came.size() < sent; ++idle) {
      came += Receive(Far(0));
      Pump();
    }
    EXPECT_TRUE(came == bytes.substr(0, sent));
  }
}

TEST_P(RelayTest, EachSideClosesItsHalf) {
  BPFGRANT_IN_PLACE();
  for (const auto make : kMake) {
    for (const bool far_first : {false, true}) {
      ASSERT_NO_FATAL_FAILURE(Open());
      Connect(1, make);
      const int first = far_first ? Far(1) : Near(1);
      const int second = far_first ? Near(1) : Far(1);
      const relay_direction& forth = Pair(1).directions[far_first ? 1 : 0];
      const relay_direction& back = Pair(1).directions[far_first ? 0 : 1];
      Send(first, "the last words");
      ASSERT_EQ(shutdown(first, SHUT_WR), 0);
      EXPECT_TRUE(PumpUntil([&] { return forth.ended == 1; }));
      EXPECT_EQ(Receive(second), "the last words");
      EXPECT_TRUE(AtEnd(second));
      EXPECT_EQ(back.ended, 0u);
      // The other half lives on.
      Exchange(second, first, Bytes(1'000'000, 1), "");
      ASSERT_EQ(shutdown(second, SHUT_WR), 0);
      EXPECT_TRUE(PumpUntilDone());
      EXPECT_TRUE(AtEnd(first));
      EXPECT_EQ(Pair(1).ended, 1u);
      EXPECT_EQ(forth.error, 0);
      EXPECT_EQ(back.error, 0);
      EXPECT_EQ(forth.sent, 14u);
      EXPECT_EQ(back.sent, 1'000'000u);
    }
  }
}

// The end comes behind what was still under way, however slowly that is read.
TEST_P(RelayTest, EndBehindAFullBuffer) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Open());
  Connect(0);
  const std::string bytes = Bytes(4 << 20, 7);
  size_t sent = 0;
  for (int idle = 0; idle < 20; ++idle) {
    sent += Send(Near(0), bytes, sent);
    Pump();
  }
  ASSERT_EQ(shutdown(Near(0), SHUT_WR), 0);
  Pump();
  EXPECT_EQ(Pair(0).directions[0].ended, 0u);
  std::string came;
  while (!Pair(0).directions[0].ended && !HasFailure()) {
    came += Receive(Far(0));
    Pump();
  }
  came += Receive(Far(0));
  EXPECT_TRUE(came == bytes.substr(0, sent));
  EXPECT_TRUE(AtEnd(Far(0)));
}

// One side goes away with a reset; the other one is told, and what it had been
// sent before still arrives.
TEST_P(RelayTest, Reset) {
  BPFGRANT_IN_PLACE();
  for (const auto make : kMake) {
    ASSERT_NO_FATAL_FAILURE(Open());
    Connect(0, make);
    Exchange(Near(0), Far(0), "hello", "hello");
    const linger at_once = {1, 0};
    ASSERT_EQ(
        setsockopt(Near(0), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)),
        0);
    // A Unix socket resets if it is closed with something unread.
    Send(Far(0), "unread");
    Pump();
    near_.erase(0);
    EXPECT_TRUE(PumpUntilDone());
    EXPECT_EQ(Pair(0).directions[0].error, ECONNRESET);
    EXPECT_TRUE(AtEnd(Far(0)));
    EXPECT_EQ(Pair(0).ended, 1u);
  }
}

TEST_P(RelayTest, DestinationThatTakesNoMore) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Open());
  Connect(0);
  // It goes on sending, but does not read.
  ASSERT_EQ(shutdown(Far(0), SHUT_RD), 0);
  Send(Near(0), "nobody wants it");
  EXPECT_TRUE(PumpUntil([&] { return Pair(0).directions[0].ended == 1; }));
  EXPECT_EQ(Pair(0).directions[0].error, EPIPE);
  EXPECT_EQ(Pair(0).directions[0].received, 15u);
  EXPECT_EQ(Pair(0).directions[0].sent, 0u);
  EXPECT_TRUE(AtEnd(Near(0)));
  far_.erase(0);
  EXPECT_TRUE(PumpUntilDone());
}

TEST_P(RelayTest, AllPairs) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Open());
  for (uint32_t i = 0; i < RELAY_PAIRS; ++i) {
    Connect(i);
    if (i % 16 == 0) Pump();
  }
  std::mt19937 random(1);
  std::vector<uint64_t> there(RELAY_PAIRS), back(RELAY_PAIRS);
  for (int round = 0; round < 200 && !HasFailure(); ++round) {
    const uint32_t i = random() % RELAY_PAIRS;
    const uint32_t length = random() % 100'000;
    Exchange(Near(i), Far(i), Bytes(length, round), Bytes(length / 3, round));
    there[i] += length;
    back[i] += length / 3;
  }
  near_.clear();
  far_.clear();
  EXPECT_TRUE(PumpUntilDone());
  for (uint32_t i = 0; i < RELAY_PAIRS; ++i) {
    EXPECT_EQ(Pair(i).ended, 1u);
    EXPECT_EQ(Pair(i).directions[0].sent, there[i]);
    EXPECT_EQ(Pair(i).directions[1].sent, back[i]);
  }
}

TEST_P(RelayTest, ANumberCanBeUsedAgain) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Open());
  EXPECT_TRUE(PumpUntilDone());
  for (int i = 0; i < 3; ++i) {
    Connect(9);
    Exchange(Near(9), Far(9), "there", "and back");
    EXPECT_EQ(Pair(9).directions[0].sent, 5u);
    // Of one that is in use, opening is ignored.
    ASSERT_TRUE(relay_open(&memory(), 9, 9999, 9999));
    Exchange(Near(9), Far(9), "there", "and back");
    near_.clear();
    far_.clear();
    EXPECT_TRUE(PumpUntilDone());
  }
  EXPECT_FALSE(relay_open(&memory(), RELAY_PAIRS, 0, 1));
}

TEST_P(RelayTest, WhatIsNoSocket) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Open());
  ASSERT_TRUE(relay_open(&memory(), 0, -1, 9999));
  EXPECT_TRUE(PumpUntilDone());
  EXPECT_EQ(Pair(0).ended, 1u);
  EXPECT_EQ(Pair(0).directions[0].error, EBADF);
  EXPECT_EQ(Pair(0).directions[1].error, EBADF);
}

TEST_P(RelayTest, RegisteredFiles) {
  BPFGRANT_IN_PLACE();
  Ends near = MakeUnix(), far = MakeUnix();
  ASSERT_NO_FATAL_FAILURE(
      Open({.files = {near.other.get(), far.other.get()}}, RELAY_FIXED_FILES));
  ASSERT_TRUE(relay_open(&memory(), 0, 0, 1));
  Exchange(near.one.get(), far.one.get(), Bytes(100'000, 1), Bytes(99, 2));
}

}  // namespace
}  // namespace bpfgrant::test
