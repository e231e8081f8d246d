// The process in which a check reads what may be hostile: what it may do, and
// what becomes of it. What it may not do, this process may.

#include "daemon/loader/confinement.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <string>

#include "absl/strings/str_cat.h"
#include "daemon/loader/trial.h"
#include "proto/refusal/refusal.h"
#include "tests/catalog/catalog_fixture.h"

namespace bpfgrant::daemon {
namespace {

constexpr std::chrono::seconds kLong{30};

TEST(ConfinementTest, ReturnsWhatTheWorkReturns) {
  const std::string large(1 << 20, 'x');
  const auto result =
      RunConfined([&] { return absl::StatusOr<std::string>(large); }, kLong);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(*result, large);
  EXPECT_EQ(*RunConfined([] { return std::string(); }, kLong), "");
}

TEST(ConfinementTest, ReturnsItsErrorsAsTheyAre) {
  const auto fail = [](const absl::Status& status) {
    return RunConfined([&] { return absl::StatusOr<std::string>(status); },
                       kLong)
        .status();
  };
  const absl::Status refused = fail(Refuse(v1::REASON_UNKNOWN_PROGRAM, "no"));
  EXPECT_EQ(ReasonOf(refused), v1::REASON_UNKNOWN_PROGRAM);
  EXPECT_EQ(fail(absl::InvalidArgumentError("that file")),
            absl::InvalidArgumentError("that file"));
}

TEST(ConfinementTest, ACrashIsTheFilesFault) {
  for (const int signal : {SIGSEGV, SIGKILL}) {
    const auto result = RunConfined(
        [&] {
          raise(signal);
          return std::string("not reached");
        },
        kLong);
    EXPECT_THAT(result.status(),
                Refused(v1::REASON_FILE_INVALID,
                        absl::StrCat("died of what it read (signal ", signal)));
  }
}

TEST(ConfinementTest, IsKilledAtTheDeadline) {
  const auto begun = std::chrono::steady_clock::now();
  const auto result = RunConfined(
      []() -> std::string {
        for (;;) pause();
      },
      std::chrono::milliseconds(100));
  EXPECT_TRUE(absl::IsDeadlineExceeded(result.status()));
  EXPECT_LT(std::chrono::steady_clock::now() - begun, kLong);
}

TEST(ConfinementTest, IsKilledAtTheDeadlineWhenItHasClosedItsEnd) {
  const auto begun = std::chrono::steady_clock::now();
  const auto result = RunConfined(
      []() -> std::string {
        close_range(3, ~0U, 0);
        for (;;) pause();
      },
      std::chrono::milliseconds(100));
  EXPECT_TRUE(absl::IsDeadlineExceeded(result.status()));
  EXPECT_LT(std::chrono::steady_clock::now() - begun, kLong);
}

TEST(ConfinementTest, HasABoundedResult) {
  const auto repeat = [](size_t size) {
    return RunConfined(
        [size] { return absl::StatusOr<std::string>(std::string(size, 'x')); },
        kLong);
  };
  constexpr size_t kMost = size_t{64} << 20;
  // Its first byte says what it is.
  EXPECT_EQ(repeat(kMost - 1)->size(), kMost - 1);
  EXPECT_TRUE(absl::IsResourceExhausted(repeat(kMost).status()));
}

// "allowed" or the errno of what a reader of files has no use for.
std::string TryMemory() {
  void* memory = mmap(nullptr, size_t{5} << 30, PROT_READ,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return absl::StrCat(errno);
  munmap(memory, size_t{5} << 30);
  return "allowed";
}

std::string TryNamespace() {
  return unshare(0) == 0 ? "allowed" : absl::StrCat(errno);
}

std::string TryFile() {
  const int file = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
  if (file < 0) return absl::StrCat(errno);
  close(file);
  return "allowed";
}

// With and without what a reader of objects gives up.
TEST(ConfinementTest, AReaderOpensNoFiles) {
  const auto forbidden = [] {
    EXPECT_TRUE(ForbidSystemCalls().ok());
    return TryFile() + " " + TryNamespace();
  };
  EXPECT_EQ(*RunConfined(forbidden, kLong), absl::StrCat(EPERM, " ", EPERM));
  EXPECT_EQ(*RunConfined(TryFile, kLong), "allowed");
}

TEST(ConfinementTest, HasBoundedMemory) {
  EXPECT_EQ(*RunConfined(TryMemory, kLong), absl::StrCat(ENOMEM));
  EXPECT_EQ(TryMemory(), "allowed");
}

TEST(ConfinementTest, GivesUpWhatTheLoaderGivesUp) {
  REQUIRE_BPF();
  EXPECT_EQ(*RunConfined(TryNamespace, kLong), absl::StrCat(EPERM));
  EXPECT_EQ(TryNamespace(), "allowed");
  // And can do its work.
  EXPECT_EQ(*RunConfined(
                [] { return std::string(Trial::Create().ok() ? "yes" : "no"); },
                kLong),
            "yes");
}

}  // namespace
}  // namespace bpfgrant::daemon
