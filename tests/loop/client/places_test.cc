// Where a loop comes to run, what is said about it, and what is refused.

#include <sys/mman.h>
#include <sys/socket.h>

#include <array>
#include <chrono>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>

#include "proto/wire/ring.h"
#include "tests/loop/client/probe_test.h"

namespace bpfgrant::test {
namespace {

using namespace std::chrono_literals;  // NOLINT
using ::testing::HasSubstr;

class PlacesTest : public ProbeTest {};
BPFGRANT_PLACES(PlacesTest);

TEST_P(PlacesTest, SaysWhereItIs) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Make(PROBE_COUNT, 1));
  if (InKernel()) {
    EXPECT_EQ(loop().place_reason(), "");
    ASSERT_NE(loop().grant(), nullptr);
    EXPECT_EQ(loop().grant()->delivery(), v1::DELIVERY_RING);
    EXPECT_EQ(loop().native(), nullptr);
    EXPECT_EQ(loop().setup_flags(), kLoopSetupFlags);
  } else {
    EXPECT_NE(loop().place_reason(), "");
    EXPECT_EQ(loop().grant(), nullptr);
    EXPECT_NE(loop().native(), nullptr);
    EXPECT_EQ(loop().native()->ring.ring_fd, loop().ring_fd());
  }
}

TEST_P(PlacesTest, OneThreadRunsIt) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Make(PROBE_COUNT, 1));
  std::thread([this] {
    EXPECT_EQ(Run().status().code(), absl::StatusCode::kFailedPrecondition);
  }).join();
  EXPECT_THAT(Run(), StopsWith(BPFGRANT_STOP_DONE));
}

TEST_P(PlacesTest, TakesTheCallersMemory) {
  BPFGRANT_IN_PLACE();
  void* pages = mmap(nullptr, 8192, PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(pages, MAP_FAILED);
  Loop::Options options = Options();
  options.memory = absl::MakeSpan(static_cast<std::byte*>(pages), 8192);
  auto* memory = static_cast<probe_memory*>(pages);
  *memory = {.job = PROBE_COUNT, .count = 3};
  {
    auto loop = Create(options);
    ASSERT_TRUE(loop.ok()) << loop.status();
    EXPECT_EQ(loop->memory().data(), pages);
    EXPECT_THAT(loop->Run({}), StopsWith(BPFGRANT_STOP_DONE));
  }
  EXPECT_EQ(memory->seen, 3u);

  options.memory = options.memory.subspan(64);
  EXPECT_EQ(Create(options).status().code(),
            absl::StatusCode::kInvalidArgument);
  options.memory = absl::MakeSpan(static_cast<std::byte*>(pages), 64);
  EXPECT_EQ(Create(options).status().code(),
            absl::StatusCode::kInvalidArgument);
  munmap(pages, 8192);
}

TEST_P(PlacesTest, SeveralAtOnce) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Make(PROBE_COUNT, 5));
  auto second = Create(Options());
  ASSERT_TRUE(second.ok()) << second.status();
  *second->memory_as<probe_memory>() = {.job = PROBE_COUNT, .count = 3};
  EXPECT_THAT(Run(), StopsWith(BPFGRANT_STOP_DONE));
  EXPECT_THAT(second->Run({}), StopsWith(BPFGRANT_STOP_DONE));
  EXPECT_EQ(memory().seen, 5u);
  EXPECT_EQ(second->memory_as<probe_memory>()->seen, 3u);
}

// Each waits for what the other one sends: one after the other they would never
// end.
TEST_P(PlacesTest, LoopsOnSeveralRingsRunInParallel) {
  BPFGRANT_IN_PLACE();
  std::array<UniqueFd, 2> ends;
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  ends = {UniqueFd(pair[0]), UniqueFd(pair[1])};
  // A connection is for one thread at a time, a loop for the thread that made
  // it.
  std::mutex connection;
  const auto exchange = [&](int own) {
    absl::StatusOr<Loop> loop = absl::UnknownError("not made yet");
    {
      const std::lock_guard lock(connection);
      loop = Create(Options());
    }
    EXPECT_TRUE(loop.ok()) << loop.status();
    if (!loop.ok()) return;
    auto* memory = loop->memory_as<probe_memory>();
    *memory = {.job = PROBE_LINKED, .count = 5, .fds = {own, own}};
    memory->bytes_at = reinterpret_cast<uintptr_t>(memory->bytes);
    std::memcpy(memory->bytes[1], "hello", 5);
    EXPECT_THAT(loop->Run({.deadline = std::chrono::steady_clock::now() + 60s}),
                StopsWith(BPFGRANT_STOP_DONE));
    EXPECT_EQ(std::string(memory->bytes[0], 5), "hello");
    const std::lock_guard lock(connection);
    loop = absl::UnknownError("released");
  };
  std::thread other([&] { exchange(ends[1].get()); });
  exchange(ends[0].get());
  other.join();
}

TEST_P(PlacesTest, CanBeMoved) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Make(PROBE_COUNT, 5));
  Loop moved = std::move(*loop_);
  loop_.reset();
  EXPECT_THAT(moved.Run({}), StopsWith(BPFGRANT_STOP_DONE));
}

TEST_P(PlacesTest, AReleasedLoopSaysSo) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Make(PROBE_COUNT, 5));
  if (!InKernel()) return;
  EXPECT_THAT(Run(), StopsWith(BPFGRANT_STOP_DONE));
  ASSERT_TRUE(loop().grant()->Release().ok());
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(Run(), StopsBy(Cause::kDetached));
  }
  EXPECT_EQ(memory().steps, 6u);
}

TEST_P(PlacesTest, AnotherInterfaceIsRefused) {
  BPFGRANT_IN_PLACE();
  if (!InKernel()) return;
  Loop::Options options = Options();
  options.interface = "probe/2";
  EXPECT_THAT(Create(options).status().ToString(), HasSubstr("probe/2"));
}

// Without a daemon.

Loop::Options Alone() {
  return {.program = "probe",
          .native = &bpfgrant_native_probe,
          .sq_entries = PROBE_SQ_ENTRIES,
          .cq_entries = PROBE_CQ_ENTRIES,
          .memory_bytes = sizeof(probe_memory)};
}

TEST(AloneTest, TheProcessWillDoIfItWasAllowed) {
  Loop::Options options = Alone();
  options.where = Loop::Where::kKernelElseProcess;
  auto loop = Loop::Create(nullptr, options);
  ASSERT_TRUE(loop.ok()) << loop.status();
  EXPECT_EQ(loop->place(), Loop::Place::kProcess);
  EXPECT_THAT(loop->place_reason(), HasSubstr("needs a connection"));
}

TEST(AloneTest, TheKernelOnlyIsAnError) {
  EXPECT_EQ(Loop::Create(nullptr, Alone()).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(AloneTest, NeitherPlaceIsAnErrorThatNamesBoth) {
  Loop::Options options = Alone();
  options.where = Loop::Where::kKernelElseProcess;
  options.native = nullptr;
  const std::string error =
      std::string(Loop::Create(nullptr, options).status().message());
  EXPECT_THAT(error, HasSubstr("in the kernel: "));
  EXPECT_THAT(error, HasSubstr("in the process: "));
  options.where = Loop::Where::kProcessOnly;
  EXPECT_THAT(std::string(Loop::Create(nullptr, options).status().message()),
              HasSubstr("no native twin"));
}

}  // namespace
}  // namespace bpfgrant::test
