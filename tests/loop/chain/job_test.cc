// Whole jobs: many files, streams in pieces, errors in the middle.

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "proto/wire/unique_fd.h"
#include "tests/loop/chain/chain_fixture.h"

namespace bpfgrant::test {
namespace {

class ChainJobTest : public ChainTest {
 protected:
  // Reads each item's file, whose path is its field 0, to its end and closes
  // it. What was read is only counted.
  void SetReadFiles(uint32_t items, uint32_t lanes, uint32_t length) {
    buffers_.resize(static_cast<size_t>(lanes) * length);
    Set({Template(IORING_OP_OPENAT, {Is(AT_FDCWD), From(CHAIN_FIELD, 0)}),
         Template(IORING_OP_READ,
                  {From(CHAIN_RESULT, 0),
                   From(CHAIN_LANE, 0, static_cast<int32_t>(length),
                        reinterpret_cast<uintptr_t>(buffers_.data())),
                   Is(length), From(CHAIN_SUM, 1)},
                  {On(kPositive, CHAIN_GO_TO, 1),
                   On(kNegative, CHAIN_NEXT, 0, CHAIN_ANY, CHAIN_FAILED)}),
         Template(IORING_OP_CLOSE, {From(CHAIN_RESULT, 0)})},
        items, lanes);
  }
  void SetPath(size_t item, const std::string& path) {
    memory().items[item].fields[0] = reinterpret_cast<uintptr_t>(path.c_str());
  }
  size_t CountFds() {
    size_t count = 0;
    for ([[maybe_unused]] const auto& entry :
         std::filesystem::directory_iterator("/proc/self/fd")) {
      ++count;
    }
    return count;
  }

  Folder folder_;
  std::vector<char> buffers_;
};

// The point of it all: one system call in the kernel, and in the process one
// for each round of all lanes.
TEST_P(ChainJobTest, AThousandFiles) {
  BPFGRANT_IN_PLACE();
  constexpr uint32_t kFiles = 1000, kLength = 512;
  ASSERT_NO_FATAL_FAILURE(Open());
  std::vector<std::string> paths;
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < kFiles; ++i) {
    const std::string content(i * 7 % 2000, 'x');
    paths.push_back(folder_.Write(std::to_string(i), content));
    bytes += content.size();
  }
  SetReadFiles(kFiles, 16, kLength);
  for (uint32_t i = 0; i < kFiles; ++i) SetPath(i, paths[i]);
  const size_t fds = CountFds();
  const uint64_t enters = loop().enters();
  ExpectDone();
  if (InKernel()) {
    EXPECT_EQ(loop().enters() - enters, 1u);
  } else {
    EXPECT_LT(loop().enters() - enters, outcome().requests);
  }
  EXPECT_EQ(outcome().done, kFiles);
  EXPECT_EQ(outcome().failed, 0u);
  EXPECT_EQ(outcome().bytes, bytes);
  for (uint32_t i = 0; i < kFiles; ++i) {
    ASSERT_EQ(result(i).bytes, i * 7 % 2000) << i;
    ASSERT_EQ(result(i).ending, CHAIN_ITEM_DONE) << i;
    ASSERT_EQ(result(i).from, 2) << i;
  }
  EXPECT_EQ(CountFds(), fds);
}

// Some files are missing, some are folders: only those fail, and all that was
// opened is closed.
TEST_P(ChainJobTest, ErrorsInTheMiddle) {
  BPFGRANT_IN_PLACE();
  constexpr uint32_t kFiles = 60;
  ASSERT_NO_FATAL_FAILURE(Open());
  const std::string good = folder_.Write("good", "good");
  const std::string none = folder_.File("none");
  SetReadFiles(kFiles, 7, 64);
  for (uint32_t i = 0; i < kFiles; ++i) {
    SetPath(i, i % 3 == 0 ? good : i % 3 == 1 ? none : folder_.path());
  }
  const size_t fds = CountFds();
  ExpectDone();
  EXPECT_EQ(outcome().done, kFiles / 3);
  EXPECT_EQ(outcome().failed, kFiles / 3 * 2);
  for (uint32_t i = 0; i < kFiles; ++i) {
    SCOPED_TRACE(i);
    EXPECT_EQ(result(i).ending,
              i % 3 == 0 ? CHAIN_ITEM_DONE : CHAIN_ITEM_FAILED);
    EXPECT_EQ(result(i).from, i % 3 == 0 ? 2 : i % 3 - 1);
    EXPECT_EQ(result(i).result, i % 3 == 0   ? 0
                                : i % 3 == 1 ? -ENOENT
                                             : -EISDIR);
  }
  EXPECT_EQ(CountFds(), fds);
}

// A peer that sends in pieces: the rest is asked for until all is there.
TEST_P(ChainJobTest, RestFromASocket) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Open());
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  const UniqueFd ours(pair[0]), theirs(pair[1]);
  std::string sent(10'000, '\0');
  std::iota(sent.begin(), sent.end(), 0);
  std::thread peer([&] {
    for (size_t at = 0; at < sent.size(); at += 700) {
      const std::string piece = sent.substr(at, 700);
      EXPECT_EQ(send(theirs.get(), piece.data(), piece.size(), 0),
                static_cast<ssize_t>(piece.size()));
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  });
  std::string received(sent.size(), '\0');
  Set({Template(IORING_OP_RECV,
                {Is(ours.get()), At(received.data()), Is(received.size())},
                {On(kAny, CHAIN_REST, 0, CHAIN_SHORT),
                 On(kZero, CHAIN_END, 0, CHAIN_ANY, CHAIN_FAILED)})});
  ExpectDone();
  peer.join();
  EXPECT_EQ(outcome().done, 1u);
  EXPECT_EQ(result(0).bytes, sent.size());
  EXPECT_TRUE(received == sent);
}

TEST_P(ChainJobTest, EndOfASocketInTheMiddle) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Open());
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  const UniqueFd ours(pair[0]);
  {
    const UniqueFd theirs(pair[1]);
    ASSERT_EQ(send(theirs.get(), "half", 4, 0), 4);
  }
  char received[8] = {};
  Set({Template(IORING_OP_RECV,
                {Is(ours.get()), At(received), Is(sizeof(received))},
                {On(kAny, CHAIN_REST, 0, CHAIN_SHORT),
                 On(kZero, CHAIN_END, 0, CHAIN_ANY, CHAIN_FAILED)})});
  ExpectDone();
  EXPECT_EQ(result(0).ending, CHAIN_ITEM_FAILED);
  EXPECT_EQ(result(0).result, 0);
  EXPECT_EQ(result(0).bytes, 4u);
  EXPECT_STREQ(received, "half");
}

// Through a pipe that holds less than is written: short writes, then short
// reads, on two lanes of one chain. The item says which of the two it is.
TEST_P(ChainJobTest, RestThroughAPipe) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Open());
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const UniqueFd reader(ends[0]), writer(ends[1]);
  ASSERT_GE(fcntl(writer.get(), F_SETPIPE_SZ, 4096), 0);
  std::string sent(100'000, '\0');
  std::iota(sent.begin(), sent.end(), 0);
  std::string received(sent.size(), '\0');
  const auto rest = {On(kAny, CHAIN_REST, 0, CHAIN_SHORT),
                     On(kAny, CHAIN_END, 0, CHAIN_FULL)};
  // An item of length 0 goes by the first template.
  Set({Template(
           IORING_OP_WRITE,
           {Is(writer.get()), At(sent.data()), From(CHAIN_FIELD, 0), Is(-1)},
           rest),
       Template(
           IORING_OP_READ,
           {Is(reader.get()), At(received.data()), Is(sent.size()), Is(-1)},
           rest)},
      2, 2);
  memory().items[0].fields[0] = sent.size();
  ExpectDone();
  EXPECT_EQ(outcome().done, 2u);
  EXPECT_EQ(result(0).bytes, sent.size());
  EXPECT_EQ(result(1).bytes, sent.size());
  EXPECT_TRUE(received == sent);
}

// The rest goes on where the file's offset was, or the file's own position.
TEST_P(ChainJobTest, RestMovesTheOffset) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Open());
  const std::string path = folder_.Write("file", "0123456789");
  const UniqueFd file(open(path.c_str(), O_RDWR | O_CLOEXEC));
  // Grows the file between the first read and its rest.
  char buffer[32] = {};
  Set({Template(IORING_OP_READ, {Is(file.get()), At(buffer), Is(15), Is(2)},
                {On(kAny, CHAIN_REST, 0, CHAIN_SHORT),
                 On(kZero, CHAIN_END, 0, CHAIN_ANY)})});
  ExpectDone();
  EXPECT_STREQ(buffer, "23456789");
  EXPECT_EQ(outcome().requests, 2u);
  std::memset(buffer, 0, sizeof(buffer));
  ASSERT_EQ(lseek(file.get(), 5, SEEK_SET), 5);
  memory().templates[0].parts[CHAIN_OFFSET] = Is(-1);
  ExpectDone();
  EXPECT_STREQ(buffer, "56789");
  EXPECT_EQ(lseek(file.get(), 0, SEEK_CUR), 10);
}

// A request for which something has to come, with a timeout beside it.
TEST_P(ChainJobTest, WakesOnData) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Open());
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  const UniqueFd ours(pair[0]), theirs(pair[1]);
  __kernel_timespec soon = {.tv_nsec = 20'000'000};
  char buffer[8];
  Set({Template(IORING_OP_TIMEOUT, {Is(-1), At(&soon), Is(1)},
                {On({-ETIME, -ETIME}, CHAIN_NEXT)}),
       Template(IORING_OP_SEND, {Is(theirs.get()), At("ping"), Is(4)}),
       Template(IORING_OP_POLL_ADD, {.fd = Is(ours.get())}, {}, 0, 1 /*IN*/),
       Template(IORING_OP_RECV, {Is(ours.get()), At(buffer), Is(8)})});
  ExpectDone();
  EXPECT_EQ(result(0).result, 4);
  EXPECT_EQ(result(0).from, 3);
  EXPECT_EQ(outcome().requests, 4u);
}

BPFGRANT_PLACES(ChainJobTest);

}  // namespace
}  // namespace bpfgrant::test
