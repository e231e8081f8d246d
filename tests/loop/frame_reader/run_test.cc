// How a process runs it: the ring buffer, threads, connections that come and
// go, wrong configs.

#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <string>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/loop/frame_reader/frame_fixture.h"

namespace bpfgrant::test {
namespace {

using ::testing::Optional;

class RunTest : public FrameReaderTest {};
BPFGRANT_PLACES(RunTest);

TEST_P(RunTest, RingBufferFull) {
  BPFGRANT_IN_PLACE();
  for (const auto mode : Modes()) {
    SCOPED_TRACE(mode);
    ASSERT_NO_FATAL_FAILURE(Open(Config(mode)));
    Connect(0);
    std::string stream;
    for (uint32_t i = 0; i < 20'000; ++i) stream += Encode(i % 4, "");
    size_t sent = 0;
    // Nothing is taken: it stops, says why, and loses nothing.
    for (int i = 0; i < 200; ++i) {
      if (sent < stream.size()) sent += Send(0, stream, sent);
      RunOnce();
    }
    EXPECT_EQ(sent, stream.size());
    EXPECT_EQ(RunOnce().why, BPFGRANT_STOP_PASSED);
    Close(0);
    EXPECT_EQ(Pump().why, BPFGRANT_STOP_DONE);
    ExpectParsed(0, stream);
  }
}

TEST_P(RunTest, StopsAfterSoManyEvents) {
  BPFGRANT_IN_PLACE();
  for (const auto mode : Modes()) {
    SCOPED_TRACE(mode);
    frame_reader_config config = Config(mode);
    config.stop_after = 1;
    ASSERT_NO_FATAL_FAILURE(Open(config));
    Connect(0);
    Send(0, Encode(1, "one"));
    EXPECT_EQ(RunOnce(/*wait=*/true).why, BPFGRANT_STOP_PASSED);
    EXPECT_EQ(Take(), 1u);
    Send(0, Encode(1, "two"));
    EXPECT_EQ(RunOnce(/*wait=*/true).why, BPFGRANT_STOP_PASSED);
    EXPECT_EQ(Take(), 1u);
    EXPECT_EQ(RunOnce().why, BPFGRANT_STOP_IDLE);
  }
}

// The loop sleeps and works in one thread; another one waits for its events.
TEST_P(RunTest, ReaderInAnotherThread) {
  BPFGRANT_IN_PLACE();
  for (const auto mode : Modes()) {
    SCOPED_TRACE(mode);
    frame_reader_config config = Config(mode);
    config.stop_after = 0;
    ASSERT_NO_FATAL_FAILURE(Open(config));
    Connect(0);
    std::string stream;
    for (uint32_t i = 0; i < 300; ++i) stream += Encode(i % 4, Body(i, i));
    std::thread reader([&] {
      for (size_t at = 0; Of(0).frames.size() < 300 && !HasFailure();) {
        // Now and then, so that there is something to wait for.
        if (at < stream.size()) at += Send(0, stream.substr(0, at + 997), at);
        pollfd poll_fd = {events().fd(), POLLIN, 0};
        if (poll(&poll_fd, 1, 20) > 0) Take();
        GiveBack();
        EXPECT_TRUE(loop().Wake(1).ok());
      }
      Close(0);
    });
    Loop::Stop stop;
    do {
      stop = RunOnce(/*wait=*/true);
    } while (stop.why == BPFGRANT_STOP_WOKEN ||
             stop.why == BPFGRANT_STOP_PASSED);
    EXPECT_EQ(stop.why, BPFGRANT_STOP_DONE);
    reader.join();
    Take();
    ExpectParsed(0, stream);
  }
}

TEST_P(RunTest, EventsWakeWhoPolls) {
  BPFGRANT_IN_PLACE();
  frame_reader_config config = Config(FRAME_READER_BULK);
  config.stop_after = 0;
  ASSERT_NO_FATAL_FAILURE(Open(config));
  Connect(0);
  for (int i = 0; i < 3; ++i) {
    pollfd poll_fd = {events().fd(), POLLIN, 0};
    EXPECT_EQ(poll(&poll_fd, 1, 0), 0);
    Send(0, Encode(1, "one"));
    EXPECT_EQ(RunOnce().why, BPFGRANT_STOP_IDLE);
    EXPECT_EQ(poll(&poll_fd, 1, 1000), 1);
    EXPECT_EQ(Take(), 1u);
  }
}

TEST_P(RunTest, ANumberCanBeUsedAgain) {
  BPFGRANT_IN_PLACE();
  for (const auto mode : Modes()) {
    SCOPED_TRACE(mode);
    ASSERT_NO_FATAL_FAILURE(Open(Config(mode)));
    EXPECT_EQ(RunOnce().why, BPFGRANT_STOP_DONE);
    Connect(3);
    // Of one that is in use, OPEN is ignored.
    Connect(3, 9999);
    SendAll(3, Encode(1, "first"));
    EXPECT_EQ(Of(3).frames.size(), 1u);
    Close(3);
    EXPECT_EQ(Pump().why, BPFGRANT_STOP_DONE);
    ASSERT_EQ(Of(3).ending, (Ending{FRAME_END, 0, 0}));
    Forget(3);
    Connect(3);
    SendAll(3, Encode(2, "second"));
    Close(3);
    EXPECT_EQ(Pump().why, BPFGRANT_STOP_DONE);
    ExpectParsed(3, Encode(2, "second"));
  }
}

TEST_P(RunTest, WhatIsNoSocket) {
  BPFGRANT_IN_PLACE();
  for (const auto mode : Modes()) {
    SCOPED_TRACE(mode);
    ASSERT_NO_FATAL_FAILURE(Open(Config(mode)));
    Connect(1, 9999);
    Connect(2, -1);
    Connect(FRAME_READER_CONNECTIONS, 0);
    Connect(0xffffff, 0);
    EXPECT_EQ(Pump().why, BPFGRANT_STOP_DONE);
    EXPECT_EQ(Of(1).ending, (Ending{FRAME_ERROR, 0, EBADF}));
    EXPECT_EQ(Of(2).ending, (Ending{FRAME_ERROR, 0, EBADF}));
  }
}

TEST_P(RunTest, RegisteredFilesAndBuffers) {
  BPFGRANT_IN_PLACE();
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  const UniqueFd ours(pair[0]), peer(pair[1]);
  frame_reader_config config = Config(FRAME_READER_DIRECT);
  config.flags = FRAME_READER_FIXED_FILES | FRAME_READER_FIXED_SLABS;
  ASSERT_NO_FATAL_FAILURE(Open(config, {.files = {ours.get()}}));
  Connect(5, 0);
  std::string stream;
  for (uint32_t i = 0; i < 9; ++i) stream += Encode(i % 4, Body(i * 7000, i));
  size_t sent = 0;
  while (sent < stream.size()) {
    const ssize_t more = send(peer.get(), stream.data() + sent,
                              stream.size() - sent, MSG_DONTWAIT);
    if (more > 0) sent += static_cast<size_t>(more);
    Pump();
    ASSERT_FALSE(HasFailure());
  }
  EXPECT_EQ(shutdown(peer.get(), SHUT_WR), 0);
  EXPECT_EQ(Pump().why, BPFGRANT_STOP_DONE);
  ExpectParsed(5, stream);
}

TEST_P(RunTest, WrongConfigs) {
  BPFGRANT_IN_PLACE();
  const auto expect = [&](frame_reader_mode mode, auto change) {
    frame_reader_config config = Config(mode);
    ASSERT_NO_FATAL_FAILURE(Open(config));
    change(memory().config);
    const Loop::Stop stop = RunOnce();
    EXPECT_EQ(stop.why, BPFGRANT_STOP_ERROR);
    EXPECT_EQ(stop.detail, -EINVAL);
  };
  using C = frame_reader_config;
  const auto direct = FRAME_READER_DIRECT;
  const auto bulk = FRAME_READER_BULK;
  expect(direct, [](C& c) { c.mode = 0; });
  expect(direct, [](C& c) { c.mode = 3; });
  expect(direct, [](C& c) { c.workers = 0; });
  expect(bulk, [](C& c) { c.workers = FRAME_READER_WORKERS + 1; });
  expect(direct, [](C& c) { c.classes = 0; });
  expect(direct, [](C& c) { c.classes = FRAME_READER_CLASSES + 1; });
  expect(direct, [](C& c) { c.class_bytes[0] = 8; });
  expect(direct, [](C& c) { c.class_bytes[2] = c.class_bytes[1]; });
  expect(direct, [](C& c) { c.class_slabs[1] = 0; });
  expect(direct, [](C& c) { c.class_slabs[1] = 1000; });
  expect(direct, [](C& c) { c.class_slabs[1] = ~0u; });
  expect(bulk, [](C& c) { c.chunk_bytes = 0; });
  expect(bulk, [](C& c) { c.chunk_bytes = FRAME_READER_CHUNK_LEAST / 2; });
  expect(bulk, [](C& c) { c.chunk_bytes = FRAME_READER_CHUNK_MOST * 2; });
  expect(bulk, [](C& c) { c.chunk_bytes = 3 << 15; });
}

}  // namespace
}  // namespace bpfgrant::test
