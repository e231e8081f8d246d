#include "proto/wire/message_socket.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// SCM_MAX_FD of include/net/scm.h.
constexpr size_t kKernelMaxFds = 253;

size_t CountOpenFds() {
  DIR* directory = opendir("/proc/self/fd");
  if (directory == nullptr) return 0;
  size_t count = 0;
  while (const dirent* entry = readdir(directory)) {
    if (entry->d_name[0] != '.') ++count;
  }
  closedir(directory);
  return count - 1;  // the directory's own
}

// The two ends of a connection, and some fds to send over it, each on a file of
// its own.
class MessageSocketTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    here_ = UniqueFd(ends[0]);
    there_ = UniqueFd(ends[1]);
  }

  // `count` read ends of as many pipes.
  static std::vector<UniqueFd> Pipes(size_t count) {
    std::vector<UniqueFd> fds;
    for (size_t i = 0; i < count; ++i) {
      int ends[2];
      if (pipe2(ends, O_CLOEXEC) != 0) break;
      close(ends[1]);
      fds.emplace_back(ends[0]);
    }
    EXPECT_THAT(fds, SizeIs(count));
    return fds;
  }

  absl::StatusOr<Packet> Receive(size_t max_fds) {
    return ReceivePacket(there_.get(), absl::MakeSpan(buffer_), max_fds);
  }
  absl::StatusCode ReceiveCode(size_t max_fds) {
    return Receive(max_fds).status().code();
  }

  UniqueFd here_;
  UniqueFd there_;
  std::array<char, 256> buffer_;
};

ino_t Inode(int fd) {
  struct stat status {};
  EXPECT_EQ(fstat(fd, &status), 0);
  return status.st_ino;
}

TEST_F(MessageSocketTest, BringsBytes) {
  const std::string_view sent("\0two\0", 5);
  ASSERT_TRUE(SendPacket(here_.get(), sent, {}).ok());
  const absl::StatusOr<Packet> packet = Receive(0);
  ASSERT_TRUE(packet.ok()) << packet.status();
  EXPECT_EQ(packet->bytes, sent);
  EXPECT_THAT(packet->fds, IsEmpty());
  EXPECT_FALSE(packet->credentials.has_value());
}

TEST_F(MessageSocketTest, KeepsPacketsApart) {
  ASSERT_TRUE(SendPacket(here_.get(), "first", {}).ok());
  ASSERT_TRUE(SendPacket(here_.get(), "second", {}).ok());
  EXPECT_EQ(Receive(0).value().bytes, "first");
  EXPECT_EQ(Receive(0).value().bytes, "second");
}

TEST_F(MessageSocketTest, BringsFdsInOrderAndCloseOnExec) {
  for (const size_t count : {size_t{1}, size_t{16}, kKernelMaxFds}) {
    SCOPED_TRACE(count);
    const std::vector<UniqueFd> sent = Pipes(count);
    const size_t before = CountOpenFds();
    {
      ASSERT_TRUE(SendPacket(here_.get(), "x", Numbers(sent)).ok());
      const absl::StatusOr<Packet> packet = Receive(count);
      ASSERT_TRUE(packet.ok()) << packet.status();
      ASSERT_THAT(packet->fds, SizeIs(count));
      for (size_t i = 0; i < count; ++i) {
        EXPECT_NE(packet->fds[i].get(), sent[i].get());
        EXPECT_EQ(Inode(packet->fds[i].get()), Inode(sent[i].get()));
        EXPECT_EQ(fcntl(packet->fds[i].get(), F_GETFD), FD_CLOEXEC);
      }
      EXPECT_EQ(CountOpenFds(), before + count);
    }
    EXPECT_EQ(CountOpenFds(), before);
  }
}

TEST_F(MessageSocketTest, RefusesToSendMoreFdsThanTheKernelTakes) {
  const std::vector<UniqueFd> sent = Pipes(1);
  const std::vector<int> numbers(kKernelMaxFds + 1, sent[0].get());
  EXPECT_EQ(SendPacket(here_.get(), "x", numbers).code(),
            absl::StatusCode::kInternal);
  EXPECT_EQ(ReceiveCode(0), absl::StatusCode::kUnavailable);
}

TEST_F(MessageSocketTest, ClosesSurplusFds) {
  const std::vector<UniqueFd> sent = Pipes(3);
  const size_t before = CountOpenFds();
  ASSERT_TRUE(SendPacket(here_.get(), "x", Numbers(sent)).ok());
  const absl::Status status = Receive(2).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("3 fds"));
  EXPECT_EQ(CountOpenFds(), before);
}

TEST_F(MessageSocketTest, RefusesPacketsLargerThanTheBuffer) {
  const std::vector<UniqueFd> sent = Pipes(1);
  const size_t before = CountOpenFds();
  const std::string fits(buffer_.size(), 'a');
  ASSERT_TRUE(SendPacket(here_.get(), fits, {}).ok());
  ASSERT_TRUE(SendPacket(here_.get(), fits + "a", Numbers(sent)).ok());
  EXPECT_EQ(Receive(1).value().bytes, fits);
  EXPECT_EQ(ReceiveCode(1), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CountOpenFds(), before);
}

// With no room in the table of fds, the kernel installs those that fit, leaves
// out the rest, and says so with MSG_CTRUNC.
TEST_F(MessageSocketTest, RefusesWhatTheKernelCutOff) {
  const std::vector<UniqueFd> sent = Pipes(3);
  const size_t before = CountOpenFds();
  ASSERT_TRUE(SendPacket(here_.get(), "x", Numbers(sent)).ok());

  rlimit old{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
  UniqueFd lowest_free(dup(here_.get()));
  ASSERT_TRUE(lowest_free.valid());
  rlimit tight = old;
  tight.rlim_cur = static_cast<rlim_t>(lowest_free.get()) + 1;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &tight), 0);
  // Room for one of the three.
  lowest_free.reset();
  const absl::Status status = Receive(3).status();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);

  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("cut off"));
  EXPECT_EQ(CountOpenFds(), before);
}

TEST_F(MessageSocketTest, TellsWhoSentAPacket) {
  const int on = 1;
  ASSERT_EQ(setsockopt(there_.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)),
            0);
  const Credentials self{getpid(), getuid(), getgid()};
  const std::vector<UniqueFd> sent = Pipes(2);
  ASSERT_TRUE(SendPacket(here_.get(), "unasked", {}).ok());
  ASSERT_TRUE(SendPacket(here_.get(), "said", Numbers(sent), self).ok());
  EXPECT_EQ(Receive(0).value().credentials, self);
  const absl::StatusOr<Packet> packet = Receive(2);
  ASSERT_TRUE(packet.ok()) << packet.status();
  EXPECT_EQ(packet->credentials, self);
  EXPECT_THAT(packet->fds, SizeIs(2));
}

TEST_F(MessageSocketTest, SendsNoPacketInAnImpossibleName) {
  // Even root cannot name a process that is not there.
  const Credentials nobody{0x7fffffff, getuid(), getgid()};
  EXPECT_EQ(SendPacket(here_.get(), "x", {}, nobody).code(),
            absl::StatusCode::kInternal);
  EXPECT_EQ(ReceiveCode(0), absl::StatusCode::kUnavailable);
}

TEST_F(MessageSocketTest, DoesNotWait) {
  EXPECT_EQ(ReceiveCode(0), absl::StatusCode::kUnavailable);

  const std::string large(16 * 1024, 'a');
  absl::Status status;
  for (int i = 0; i < 10'000 && status.ok(); ++i) {
    status = SendPacket(here_.get(), large, {});
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
}

TEST_F(MessageSocketTest, TellsThatThePeerIsGone) {
  ASSERT_TRUE(SendPacket(here_.get(), "last words", {}).ok());
  here_.reset();
  EXPECT_EQ(Receive(0).value().bytes, "last words");
  EXPECT_EQ(ReceiveCode(0), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(SendPacket(there_.get(), "x", {}).code(),
            absl::StatusCode::kOutOfRange);
}

// What a peer left unread when it closed shows as ECONNRESET.
TEST_F(MessageSocketTest, TellsThatThePeerLeftWithoutReading) {
  ASSERT_TRUE(SendPacket(there_.get(), "never read", {}).ok());
  here_.reset();
  EXPECT_EQ(ReceiveCode(0), absl::StatusCode::kOutOfRange);
}

TEST_F(MessageSocketTest, TakesAnEmptyPacketForTheEndAndClosesItsFds) {
  const std::vector<UniqueFd> sent = Pipes(1);
  const size_t before = CountOpenFds();
  ASSERT_TRUE(SendPacket(here_.get(), "", Numbers(sent)).ok());
  EXPECT_EQ(ReceiveCode(1), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(CountOpenFds(), before);
}

TEST_F(MessageSocketTest, ErrorsOtherThanThePeersAreInternal) {
  const UniqueFd file(open("/dev/null", O_RDWR | O_CLOEXEC));
  EXPECT_EQ(SendPacket(file.get(), "x", {}).code(),
            absl::StatusCode::kInternal);
  EXPECT_EQ(
      ReceivePacket(file.get(), absl::MakeSpan(buffer_), 0).status().code(),
      absl::StatusCode::kInternal);
}

TEST_F(MessageSocketTest, KnowsWhetherAllIsRead) {
  EXPECT_TRUE(AllRead(here_.get()));
  ASSERT_TRUE(SendPacket(here_.get(), "x", {}).ok());
  ASSERT_TRUE(SendPacket(here_.get(), "y", {}).ok());
  EXPECT_FALSE(AllRead(here_.get()));
  EXPECT_TRUE(AllRead(there_.get()));
  ASSERT_TRUE(Receive(0).ok());
  EXPECT_FALSE(AllRead(here_.get()));
  ASSERT_TRUE(Receive(0).ok());
  EXPECT_TRUE(AllRead(here_.get()));
}

TEST_F(MessageSocketTest, WhatCannotBeAskedIsNotAllRead) {
  EXPECT_FALSE(AllRead(-1));
}

TEST(NumbersTest, AreThoseOfTheFdsInOrder) {
  std::vector<UniqueFd> fds;
  fds.emplace_back(dup(STDERR_FILENO));
  fds.emplace_back(dup(STDERR_FILENO));
  EXPECT_THAT(Numbers(fds), ElementsAre(fds[0].get(), fds[1].get()));
}

}  // namespace
}  // namespace bpfgrant
