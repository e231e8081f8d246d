#include "proto/wire/unique_fd.h"

#include <fcntl.h>

#include <cerrno>
#include <type_traits>
#include <utility>

#include "gtest/gtest.h"

namespace bpfgrant {
namespace {

static_assert(!std::is_copy_constructible_v<UniqueFd>);
static_assert(!std::is_copy_assignable_v<UniqueFd>);
static_assert(std::is_nothrow_move_constructible_v<UniqueFd>);
static_assert(std::is_nothrow_move_assignable_v<UniqueFd>);
static_assert(!std::is_convertible_v<int, UniqueFd>);
static_assert(!std::is_convertible_v<UniqueFd, int>);
static_assert(!std::is_convertible_v<UniqueFd, bool>);

// Beyond what this process has or can have.
constexpr int kNoSuchFd = 1 << 30;

int OpenNull() { return open("/dev/null", O_RDONLY | O_CLOEXEC); }
bool IsOpen(int fd) { return fcntl(fd, F_GETFD) >= 0; }

TEST(UniqueFdTest, IsEmptyFromTheStart) {
  UniqueFd fd;
  EXPECT_FALSE(fd.valid());
  EXPECT_EQ(fd.get(), -1);
}

TEST(UniqueFdTest, AdoptsAndCloses) {
  const int number = OpenNull();
  ASSERT_GE(number, 0);
  {
    UniqueFd fd(number);
    EXPECT_TRUE(fd.valid());
    EXPECT_EQ(fd.get(), number);
    EXPECT_TRUE(IsOpen(number));
  }
  EXPECT_FALSE(IsOpen(number));
}

TEST(UniqueFdTest, ZeroIsAnFdLikeAnyOther) {
  UniqueFd fd(0);
  EXPECT_TRUE(fd.valid());
  EXPECT_EQ(fd.release(), 0);
}

TEST(UniqueFdTest, MovingLeavesNothingBehind) {
  const int number = OpenNull();
  UniqueFd from(number);
  UniqueFd to(std::move(from));
  EXPECT_FALSE(from.valid());  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(to.get(), number);
  EXPECT_TRUE(IsOpen(number));
}

TEST(UniqueFdTest, MoveAssignmentClosesWhatWasThere) {
  const int first = OpenNull();
  const int second = OpenNull();
  UniqueFd fd(first);
  UniqueFd other(second);
  fd = std::move(other);
  EXPECT_FALSE(other.valid());  // NOLINT(bugprone-use-after-move)
  EXPECT_FALSE(IsOpen(first));
  EXPECT_TRUE(IsOpen(second));
  EXPECT_EQ(fd.get(), second);
}

TEST(UniqueFdTest, SurvivesBeingMovedToItself) {
  const int number = OpenNull();
  UniqueFd fd(number);
  UniqueFd& same = fd;
  fd = std::move(same);
  EXPECT_EQ(fd.get(), number);
  EXPECT_TRUE(IsOpen(number));
}

TEST(UniqueFdTest, ResetToTheSameFdKeepsItOpen) {
  const int number = OpenNull();
  UniqueFd fd(number);
  fd.reset(number);
  EXPECT_EQ(fd.get(), number);
  EXPECT_TRUE(IsOpen(number));
}

TEST(UniqueFdTest, ReleaseLeavesItOpen) {
  int number = -1;
  {
    UniqueFd fd(OpenNull());
    number = fd.release();
    EXPECT_FALSE(fd.valid());
  }
  EXPECT_TRUE(IsOpen(number));
  close(number);
}

TEST(UniqueFdTest, KeepsErrno) {
  UniqueFd fd(kNoSuchFd);
  errno = ENOENT;
  fd.reset();  // close(2) says EBADF
  EXPECT_EQ(errno, ENOENT);
  {
    UniqueFd in_scope(kNoSuchFd);
    errno = EXDEV;
  }
  EXPECT_EQ(errno, EXDEV);
}

TEST(UniqueFdTest, ClosesOnce) {
  const int number = OpenNull();
  int next = -1;
  {
    UniqueFd fd(number);
    fd.reset();
    // The kernel gives the lowest free number: a second close would hit it.
    next = OpenNull();
    ASSERT_EQ(next, number);
    fd.reset();
    EXPECT_TRUE(IsOpen(next));
  }
  EXPECT_TRUE(IsOpen(next));
  close(next);
}

}  // namespace
}  // namespace bpfgrant
