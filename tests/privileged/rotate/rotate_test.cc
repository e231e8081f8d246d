// Swappable maps, turned over by a client without privilege while its program
// runs: rightly, wrongly, at once and too late.

#include <linux/bpf.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "client/bpfgrant/grant.h"
#include "client/bpfgrant/mapped_array.h"
#include "client/bpfgrant/swappable_map.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/unique_fd.h"
#include "tests/harness/as_nobody.h"
#include "tests/privileged/rotate/turned.h"

namespace bpfgrant::test {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

// Below the most that a run does.
constexpr uint64_t kMostWork = (1 << 23) - 1;

// The catalog of a daemon that NobodyTest starts itself.
[[maybe_unused]] const int catalog =
    setenv("BPFGRANT_TEST_CATALOG", TURNED_CATALOG, /*replace=*/1);

class RotateTest : public NobodyTest {
 protected:
  RotateTest() : NobodyTest("turned") {}

  void SetUp() override {
    NobodyTest::SetUp();
    if (!IsNobody() || HasFatalFailure()) return;
    auto grant = Acquire();
    ASSERT_TRUE(grant.ok()) << grant.status();
    grant_.emplace(*std::move(grant));
    for (const char* name : {"first", "second"}) {
      auto map = SwappableMap::Of(*grant_, name);
      ASSERT_TRUE(map.ok()) << map.status();
      maps_.push_back(*std::move(map));
      ASSERT_TRUE(Write(maps_.back().current(), {}));
      ASSERT_TRUE(Write(maps_.back().spare(), {}));
    }
    auto mapped = MappedArray::Map(**grant_->Find("page"));
    ASSERT_TRUE(mapped.ok()) << mapped.status();
    page_.emplace(*std::move(mapped));
  }
  void TearDown() override { StopSending(); }

  absl::StatusOr<Grant> Acquire() {
    return connection().Acquire({.program = "turned", .interface = "turned/1"});
  }

  SwappableMap& first() { return maps_[0]; }
  SwappableMap& second() { return maps_[1]; }
  absl::Status RotateBoth(milliseconds deadline = milliseconds(30'000)) {
    return Rotate(*grant_, {&first(), &second()}, deadline);
  }

  static int Bpf(int command, int map, void* value) {
    uint32_t zero = 0;
    bpf_attr attributes{};
    attributes.map_fd = static_cast<uint32_t>(map);
    attributes.key = reinterpret_cast<uintptr_t>(&zero);
    attributes.value = reinterpret_cast<uintptr_t>(value);
    return static_cast<int>(
        syscall(SYS_bpf, command, &attributes, sizeof(attributes)));
  }
  static turned_count Read(int map) {
    turned_count count{};
    EXPECT_EQ(Bpf(BPF_MAP_LOOKUP_ELEM, map, &count), 0) << strerror(errno);
    return count;
  }
  static bool Write(int map, turned_count count) {
    return Bpf(BPF_MAP_UPDATE_ELEM, map, &count) == 0;
  }

  // What a run does from now on.
  void SetWork(uint64_t work) {
    __atomic_store_n(&page_->At<turned_page>(0)->work, work, __ATOMIC_RELEASE);
  }
  // Such that a run takes about `time`; returns how long it does.
  milliseconds SetWorkFor(milliseconds time) {
    for (uint64_t work = 1 << 10;; work = std::min(2 * work, kMostWork)) {
      SetWork(work);
      const milliseconds took = Shortest(5);
      if (took >= time || work == kMostWork) return took;
    }
  }
  // Of so many runs: the others may have been interrupted.
  milliseconds Shortest(int runs) {
    auto shortest = Clock::duration::max();
    for (int i = 0; i < runs; ++i) {
      const auto begin = Clock::now();
      Run();
      shortest = std::min(shortest, Clock::now() - begin);
    }
    return std::chrono::duration_cast<milliseconds>(shortest);
  }

  // One packet by the program, on a socket of this thread's own.
  void Run() {
    if (!sockets_.has_value()) sockets_.emplace(Filtered());
    sockets_->Send();
  }
  // Threads that do nothing else until StopSending.
  void BeginSending(int threads) {
    for (int i = 0; i < threads; ++i) {
      senders_.emplace_back([this] {
        const Sockets sockets = Filtered();
        while (!stop_.load()) {
          sockets.Send();
          sent_.fetch_add(1);
        }
      });
    }
  }
  void StopSending() {
    stop_.store(true);
    for (std::thread& sender : senders_) sender.join();
    senders_.clear();
  }

  struct Sockets {
    UniqueFd in, out;
    void Send() const {
      char byte = 0;
      ASSERT_EQ(write(in.get(), &byte, 1), 1) << strerror(errno);
      ASSERT_EQ(read(out.get(), &byte, 1), 1) << strerror(errno);
    }
  };
  Sockets Filtered() const {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends), 0);
    Sockets sockets{UniqueFd(ends[0]), UniqueFd(ends[1])};
    const int program = grant_->program_fd();
    EXPECT_EQ(setsockopt(ends[1], SOL_SOCKET, SO_ATTACH_BPF, &program,
                         sizeof(program)),
              0)
        << strerror(errno);
    return sockets;
  }

  // Turns both over again and again while two threads send, with runs of about
  // `time`, and looks at the old ones twice: how often one of them changed
  // after it was given up.
  int CountChanges(int turns, milliseconds time) {
    const milliseconds run = SetWorkFor(time);
    EXPECT_TRUE(Write(first().current(), {}));
    EXPECT_TRUE(Write(second().current(), {}));
    BeginSending(2);
    int changes = 0;
    for (int i = 0; i < turns; ++i) {
      const absl::Status status = RotateBoth();
      EXPECT_TRUE(status.ok()) << status;
      const turned_count before = Read(first().spare());
      std::this_thread::sleep_for(2 * run + milliseconds(1));
      const turned_count after = Read(first().spare());
      changes += std::memcmp(&before, &after, sizeof(before)) != 0;
      if (changes == 0) {
        // Turned over together: what began with one began with the other.
        EXPECT_EQ(after.runs, Read(second().spare()).runs) << i;
      }
      runs_ += after.runs;
      EXPECT_TRUE(Write(first().spare(), {}));
      EXPECT_TRUE(Write(second().spare(), {}));
    }
    StopSending();
    runs_ += Read(first().current()).runs;
    return changes;
  }

  std::optional<Grant> grant_;
  std::vector<SwappableMap> maps_;
  std::optional<MappedArray> page_;
  std::optional<Sockets> sockets_;
  std::vector<std::thread> senders_;
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> sent_{0};
  uint64_t runs_ = 0;
};

TEST_F(RotateTest, RunsSeeTheOtherOnesAtOnce) {
  BPFGRANT_AS_NOBODY();
  Run();
  Run();
  EXPECT_EQ(Read(first().current()).runs, 2u);
  EXPECT_EQ(Read(first().spare()).runs, 0u);
  const int old = first().current();
  const auto now = grant_->Rotate({"first"});
  ASSERT_TRUE(now.ok()) << now.status();
  EXPECT_THAT(*now, ::testing::ElementsAre("first.1"));
  Run();
  EXPECT_EQ(Read(old).runs, 2u);
  EXPECT_EQ(Read((*grant_->Find("first.1"))->fd.get()).runs, 1u);
  // The other map stays.
  EXPECT_EQ(Read(second().current()).runs, 3u);
}

TEST_F(RotateTest, WhatWasFilledBeforeIsSeen) {
  BPFGRANT_AS_NOBODY();
  ASSERT_TRUE(Write(first().spare(), {.runs = 1000, .work = 0}));
  ASSERT_TRUE(Write(second().spare(), {.runs = 2000, .work = 0}));
  ASSERT_TRUE(RotateBoth().ok());
  Run();
  EXPECT_EQ(Read(first().current()).runs, 1001u);
  EXPECT_EQ(Read(second().current()).runs, 2001u);
  ASSERT_TRUE(RotateBoth().ok());
  Run();
  EXPECT_EQ(Read(first().current()).runs, 1u);
  EXPECT_EQ(Read(first().spare()).runs, 1001u);
}

TEST_F(RotateTest, NothingHasAnOldMapAfterwards) {
  BPFGRANT_AS_NOBODY();
  EXPECT_EQ(CountChanges(20, milliseconds(2)), 0);
  // None was lost, none counted twice.
  EXPECT_EQ(runs_, sent_.load());
}

class RotateWithoutWaitingTest : public RotateTest {
 protected:
  std::vector<std::string> Without() override { return {"rotate_waits"}; }
};

TEST_F(RotateWithoutWaitingTest, SomethingHasAnOldMapAfterwards) {
  BPFGRANT_AS_NOBODY();
  EXPECT_GT(CountChanges(5, milliseconds(50)), 0);
}

TEST_F(RotateTest, ADeadlineIsKeptAndCanBeWaitedBeyond) {
  BPFGRANT_AS_NOBODY();
  const milliseconds run = SetWorkFor(milliseconds(200));
  if (run < milliseconds(50)) GTEST_SKIP() << "kernel: no run takes 50 ms";
  BeginSending(1);
  while (sent_.load() == 0) std::this_thread::yield();
  const int old = first().current();
  absl::Status status = RotateBoth(milliseconds(1));
  // Between two runs it can be that quick.
  for (int i = 0; i < 50 && status.ok(); ++i)
    status = RotateBoth(milliseconds(1));
  ASSERT_EQ(ReasonOf(status), v1::REASON_STILL_READ) << status;
  EXPECT_THAT(std::string(status.message()),
              ::testing::HasSubstr("first, second"));
  EXPECT_TRUE(first().current() == old || first().spare() == old);
  // The next turn would bring back what is still read.
  EXPECT_EQ(ReasonOf(RotateBoth(milliseconds(1))), v1::REASON_BUSY);
  const auto waited = grant_->Rotate({}, milliseconds(30'000));
  ASSERT_TRUE(waited.ok()) << waited.status();
  const turned_count before = Read(first().spare());
  std::this_thread::sleep_for(run);
  const turned_count after = Read(first().spare());
  EXPECT_EQ(std::memcmp(&before, &after, sizeof(before)), 0);
  StopSending();
  EXPECT_TRUE(RotateBoth().ok());
}

TEST_F(RotateTest, Mistakes) {
  BPFGRANT_AS_NOBODY();
  const auto reason = [this](const std::vector<std::string>& maps) {
    return ReasonOf(grant_->Rotate(maps).status());
  };
  EXPECT_EQ(reason({"third"}), v1::REASON_UNKNOWN_HANDLE);
  EXPECT_EQ(reason({"page"}), v1::REASON_UNKNOWN_HANDLE);
  EXPECT_EQ(reason({"first.0"}), v1::REASON_UNKNOWN_HANDLE);
  EXPECT_EQ(reason({"first", "first"}), v1::REASON_UNKNOWN_HANDLE);
  EXPECT_EQ(reason({"first", "third"}), v1::REASON_UNKNOWN_HANDLE);
  EXPECT_EQ(reason({std::string(5000, 'x')}), v1::REASON_UNKNOWN_HANDLE);
  EXPECT_EQ(ReasonOf(grant_->Rotate({"first"}, milliseconds(0)).status()),
            v1::REASON_INVALID_ARGUMENT);
  EXPECT_EQ(ReasonOf(grant_->Rotate({"first"}, milliseconds(60'001)).status()),
            v1::REASON_INVALID_ARGUMENT);
  // Nothing was turned over by any of them.
  Run();
  EXPECT_EQ(Read(first().current()).runs, 1u);
  EXPECT_TRUE(grant_->Rotate({}).ok());
}

TEST_F(RotateTest, NobodyTurnsAnothersMaps) {
  BPFGRANT_AS_NOBODY();
  auto others = Connection::Connect({.path = SocketForNobody()});
  ASSERT_TRUE(others.ok()) << others.status();
  auto grant = others->Acquire({.program = "turned", .interface = "turned/1"});
  ASSERT_TRUE(grant.ok()) << grant.status();
  auto theirs = SwappableMap::Of(*grant, "first");
  ASSERT_TRUE(theirs.ok()) << theirs.status();
  ASSERT_TRUE(Rotate(*grant, {&*theirs}).ok());
  Run();
  EXPECT_EQ(Read(first().current()).runs, 1u);
  EXPECT_EQ(Read(theirs->current()).runs, 0u);
}

TEST_F(RotateTest, TooLate) {
  BPFGRANT_AS_NOBODY();
  ASSERT_TRUE(grant_->Release().ok());
  EXPECT_EQ(ReasonOf(grant_->Rotate({"first"}).status()),
            v1::REASON_UNKNOWN_GRANT);
  auto again = Acquire();
  ASSERT_TRUE(again.ok()) << again.status();
  grant_.emplace(*std::move(again));
  auto map = SwappableMap::Of(*grant_, "first");
  ASSERT_TRUE(map.ok());
  sockets_.reset();
  // Whoever had the slot before has turned nothing for us.
  Run();
  EXPECT_EQ(Read(map->current()).runs, 1u);
}

// Half of its calls come while the other half waits for the grace period.
TEST_F(RotateTest, ByTwoProcessesAtOnce) {
  BPFGRANT_AS_NOBODY();
  const pid_t child = fork();
  if (child == 0) {
    auto connection = Connection::Connect({.path = SocketForNobody()});
    if (!connection.ok()) _exit(1);
    auto grant =
        connection->Acquire({.program = "turned", .interface = "turned/1"});
    if (!grant.ok()) _exit(2);
    for (int i = 0; i < 1000; ++i) {
      if (!grant->Rotate({"first", "second"}).ok()) _exit(3);
      // In the middle of one, at the end.
      if (i == 3) kill(getpid(), SIGKILL);
    }
    _exit(0);
  }
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(RotateBoth().ok());
    Run();
  }
  EXPECT_EQ(Read(first().current()).runs + Read(first().spare()).runs, 10u);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status)) << WEXITSTATUS(status);
  EXPECT_TRUE(RotateBoth().ok());
}

}  // namespace
}  // namespace bpfgrant::test
