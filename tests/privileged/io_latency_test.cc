// io_latency in the hands of a client without privilege: what it says of the
// client's own requests is what the client knows of them.

#include "bpfgrant/programs/io_latency.h"

#include <bpf/bpf.h>
#include <liburing.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "client/bpfgrant/mapped_array.h"
#include "client/bpfgrant/ring_buffer.h"
#include "gtest/gtest.h"
#include "tests/harness/as_nobody.h"

namespace bpfgrant::test {
namespace {

using std::chrono::milliseconds;

// Where bucket `b` begins, as io_latency.h says.
uint64_t BucketStart(uint32_t b) {
  return b < 4 ? b : uint64_t{4 + b % 4} << (b / 4 - 1);
}

// A ring of the test's own.
class Ring {
 public:
  explicit Ring(unsigned entries, unsigned flags = 0) {
    EXPECT_EQ(io_uring_queue_init(entries, &ring_, flags), 0);
  }
  ~Ring() { io_uring_queue_exit(&ring_); }

  // To be prepared; submits what there is when the queue is full.
  io_uring_sqe* Next() {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    while (sqe == nullptr) {
      io_uring_submit(&ring_);
      sqe = io_uring_get_sqe(&ring_);
    }
    return sqe;
  }
  void Submit() { EXPECT_GE(io_uring_submit(&ring_), 0); }
  // Takes so many completions; their results.
  std::vector<int> Wait(size_t count) {
    std::vector<int> results;
    Submit();
    while (results.size() < count) {
      io_uring_cqe* completion = nullptr;
      if (io_uring_wait_cqe(&ring_, &completion) < 0) continue;
      results.push_back(completion->res);
      io_uring_cqe_seen(&ring_, completion);
    }
    return results;
  }
  void RunNops(size_t count, unsigned flags = 0) {
    for (size_t left = count; left > 0;) {
      const size_t batch = std::min<size_t>(left, ring_.sq.ring_entries);
      for (size_t i = 0; i < batch; ++i) {
        io_uring_sqe* sqe = Next();
        io_uring_prep_nop(sqe);
        io_uring_sqe_set_flags(sqe, flags);
      }
      Wait(batch);
      left -= batch;
    }
  }

 private:
  io_uring ring_{};
};

class IoLatencyTest : public NobodyTest {
 protected:
  IoLatencyTest() : NobodyTest("io_latency") {}

  void Acquire() {
    auto grant =
        connection().Acquire({.program = "io_latency",
                              .interface = IO_LATENCY_INTERFACE,
                              .interface_hash = IO_LATENCY_INTERFACE_HASH,
                              .delivery = v1::DELIVERY_PROCESS});
    ASSERT_TRUE(grant.ok()) << grant.status();
    grant_.emplace(*std::move(grant));
    auto settings = MappedArray::Map(**grant_->Find("settings"));
    ASSERT_TRUE(settings.ok()) << settings.status();
    settings_.emplace(*std::move(settings));
    auto events = RingBuffer::Map(**grant_->Find("events"));
    ASSERT_TRUE(events.ok()) << events.status();
    events_.emplace(*std::move(events));
  }

  io_latency_histogram Of(uint32_t opcode) {
    io_latency_histogram histogram{};
    const int fd = (*grant_->Find("latencies"))->fd.get();
    EXPECT_EQ(bpf_map_lookup_elem(fd, &opcode, &histogram), 0);
    return histogram;
  }
  // That of all operations only these were seen, so often each.
  void ExpectOnly(const std::vector<std::pair<uint32_t, uint64_t>>& counts) {
    for (uint32_t opcode = 0; opcode < IO_LATENCY_OPCODES; ++opcode) {
      uint64_t expected = 0;
      for (const auto& [which, count] : counts) {
        if (which == opcode) expected = count;
      }
      const io_latency_histogram seen = Of(opcode);
      EXPECT_EQ(seen.submitted, expected) << opcode;
      EXPECT_EQ(seen.completed, expected) << opcode;
      EXPECT_EQ(seen.unmeasured, 0u) << opcode;
      uint64_t in_buckets = 0;
      for (const uint64_t bucket : seen.bucket) in_buckets += bucket;
      EXPECT_EQ(in_buckets, expected) << opcode;
    }
  }
  // Completions can come to the process before the program has seen them.
  void WaitUntilCompleted(uint32_t opcode, uint64_t count) {
    for (int i = 0; i < 2000 && Of(opcode).completed < count; ++i) {
      std::this_thread::sleep_for(milliseconds(10));
    }
    EXPECT_EQ(Of(opcode).completed, count);
  }
  void SetThreshold(uint64_t ns) {
    __atomic_store_n(&settings_->At<io_latency_settings>(0)->threshold_ns, ns,
                     __ATOMIC_RELAXED);
  }
  std::vector<io_latency_event> Events() {
    std::vector<io_latency_event> events;
    const auto read = events_->Consume([&](auto bytes) {
      io_latency_event event{};
      EXPECT_EQ(bytes.size(), sizeof(event));
      std::memcpy(&event, bytes.data(), sizeof(event));
      events.push_back(event);
    });
    EXPECT_TRUE(read.ok()) << read.status();
    return events;
  }

  std::optional<Grant> grant_;
  std::optional<MappedArray> settings_;
  std::optional<RingBuffer> events_;
};

// Sleeps so long in the kernel; what the process itself measured.
uint64_t SleepInRing(Ring& ring, milliseconds time, uint64_t user_data = 0) {
  __kernel_timespec wanted{0, std::chrono::nanoseconds(time).count()};
  const auto before = std::chrono::steady_clock::now();
  io_uring_sqe* sqe = ring.Next();
  io_uring_prep_timeout(sqe, &wanted, 0, 0);
  io_uring_sqe_set_data64(sqe, user_data);
  EXPECT_EQ(ring.Wait(1), std::vector<int>{-ETIME});
  return std::chrono::nanoseconds(std::chrono::steady_clock::now() - before)
      .count();
}

TEST_F(IoLatencyTest, ATimeoutIsInTheBucketOfItsTime) {
  BPFGRANT_AS_NOBODY();
  ASSERT_NO_FATAL_FAILURE(Acquire());
  Ring ring(8);
  const uint64_t measured = SleepInRing(ring, milliseconds(20));
  const io_latency_histogram seen = Of(IORING_OP_TIMEOUT);
  EXPECT_EQ(seen.completed, 1u);
  EXPECT_GE(seen.total_ns, 20'000'000u);
  EXPECT_LE(seen.total_ns, measured);
  for (uint32_t b = 0; b + 1 < IO_LATENCY_BUCKETS; ++b) {
    const bool here =
        seen.total_ns >= BucketStart(b) && seen.total_ns < BucketStart(b + 1);
    EXPECT_EQ(seen.bucket[b], here ? 1u : 0u) << b;
  }
}

TEST_F(IoLatencyTest, CountsAreExactByOperation) {
  BPFGRANT_AS_NOBODY();
  ASSERT_NO_FATAL_FAILURE(Acquire());
  Ring ring(64), other(8);
  ring.RunNops(1000);
  other.RunNops(10);
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  char byte = 'x';
  for (int i = 0; i < 100; ++i) {
    io_uring_sqe* write = ring.Next();
    io_uring_prep_write(write, ends[1], &byte, 1, -1);
    io_uring_sqe_set_flags(write, IOSQE_IO_LINK);
    io_uring_prep_read(ring.Next(), ends[0], &byte, 1, -1);
    EXPECT_EQ(ring.Wait(2), (std::vector<int>{1, 1}));
  }
  // A chain that breaks: what was cancelled had been submitted.
  io_uring_sqe* broken = ring.Next();
  io_uring_prep_read(broken, -1, &byte, 1, -1);
  io_uring_sqe_set_flags(broken, IOSQE_IO_LINK);
  io_uring_prep_fsync(ring.Next(), ends[0], 0);
  EXPECT_EQ(ring.Wait(2), (std::vector<int>{-EBADF, -ECANCELED}));
  for (int i = 0; i < 3; ++i) SleepInRing(ring, milliseconds(1));
  WaitUntilCompleted(IORING_OP_TIMEOUT, 3);
  ExpectOnly({{IORING_OP_NOP, 1010},
              {IORING_OP_WRITE, 100},
              {IORING_OP_READ, 101},
              {IORING_OP_FSYNC, 1},
              {IORING_OP_TIMEOUT, 3}});
}

TEST_F(IoLatencyTest, TellsOfWhatTookTooLong) {
  BPFGRANT_AS_NOBODY();
  ASSERT_NO_FATAL_FAILURE(Acquire());
  Ring ring(8);
  SleepInRing(ring, milliseconds(5), 1);
  EXPECT_TRUE(Events().empty());
  SetThreshold(5'000'000);
  ring.RunNops(1);
  const uint64_t measured = SleepInRing(ring, milliseconds(20), 0xfeedface);
  std::vector<io_latency_event> slow;
  for (const io_latency_event& event : Events()) {
    if (event.opcode == IORING_OP_TIMEOUT) slow.push_back(event);
  }
  ASSERT_EQ(slow.size(), 1u);
  EXPECT_EQ(slow[0].user_data, 0xfeedfaceu);
  EXPECT_EQ(slow[0].result, -ETIME);
  EXPECT_GE(slow[0].latency_ns, 20'000'000u);
  EXPECT_LE(slow[0].latency_ns, measured);
  SetThreshold(0);
  SleepInRing(ring, milliseconds(5));
  EXPECT_TRUE(Events().empty());
}

TEST_F(IoLatencyTest, TheKernelsThreadsOfTheProcessCountToo) {
  BPFGRANT_AS_NOBODY();
  ASSERT_NO_FATAL_FAILURE(Acquire());
  {
    Ring workers(8);
    workers.RunNops(50, IOSQE_ASYNC);
    Ring polled(8, IORING_SETUP_SQPOLL);
    polled.RunNops(70);
  }
  std::thread([] { Ring(8).RunNops(30); }).join();
  WaitUntilCompleted(IORING_OP_NOP, 150);
  ExpectOnly({{IORING_OP_NOP, 150}});
}

TEST_F(IoLatencyTest, AMultishotRequestIsOne) {
  BPFGRANT_AS_NOBODY();
  ASSERT_NO_FATAL_FAILURE(Acquire());
  Ring ring(8);
  const int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  io_uring_sqe* sqe = ring.Next();
  io_uring_prep_poll_multishot(sqe, event, POLLIN);
  io_uring_sqe_set_data64(sqe, 77);
  ring.Submit();
  for (int i = 0; i < 3; ++i) {
    uint64_t count = 1;
    ASSERT_EQ(write(event, &count, sizeof(count)), 8);
    EXPECT_EQ(ring.Wait(1), std::vector<int>{POLLIN});
    ASSERT_EQ(read(event, &count, sizeof(count)), 8);
  }
  EXPECT_EQ(Of(IORING_OP_POLL_ADD).completed, 0u);
  io_uring_prep_cancel64(ring.Next(), 77, 0);
  ring.Wait(2);
  ExpectOnly({{IORING_OP_POLL_ADD, 1}, {IORING_OP_ASYNC_CANCEL, 1}});
}

TEST_F(IoLatencyTest, SuccessThatIsNotToldIsNotMeasured) {
  BPFGRANT_AS_NOBODY();
  ASSERT_NO_FATAL_FAILURE(Acquire());
  Ring ring(64);
  for (int i = 0; i < 20; ++i) {
    io_uring_sqe* sqe = ring.Next();
    io_uring_prep_nop(sqe);
    io_uring_sqe_set_flags(sqe, IOSQE_CQE_SKIP_SUCCESS);
  }
  ring.RunNops(5);
  EXPECT_EQ(Of(IORING_OP_NOP).submitted, 25u);
  EXPECT_EQ(Of(IORING_OP_NOP).unmeasured, 20u);
  EXPECT_EQ(Of(IORING_OP_NOP).completed, 5u);
}

TEST_F(IoLatencyTest, AFloodFindsNoRoomAndIsCounted) {
  BPFGRANT_AS_NOBODY();
  ASSERT_NO_FATAL_FAILURE(Acquire());
  constexpr uint64_t kFlood = 3 * IO_LATENCY_IN_FLIGHT;
  const int event = eventfd(0, EFD_CLOEXEC);
  {
    Ring ring(4096);
    for (uint64_t i = 0; i < kFlood; ++i) {
      io_uring_prep_poll_add(ring.Next(), event, POLLIN);
    }
    ring.Submit();
    EXPECT_EQ(Of(IORING_OP_POLL_ADD).submitted, kFlood);
    EXPECT_EQ(Of(IORING_OP_POLL_ADD).unmeasured, kFlood - IO_LATENCY_IN_FLIGHT);
    EXPECT_EQ(Of(IORING_OP_POLL_ADD).completed, 0u);
    const uint64_t count = 1;
    ASSERT_EQ(write(event, &count, sizeof(count)), 8);
    ring.Wait(1);
  }
  // More than the queue holds completed at once, and not all of it was seen.
  // What is left makes room in the end.
  std::this_thread::sleep_for(std::chrono::seconds(IO_LATENCY_OLD_SECONDS));
  Ring ring(8);
  ring.RunNops(10'000);
  const uint64_t measured = Of(IORING_OP_NOP).completed;
  EXPECT_GT(measured, 0u);
  ring.RunNops(100);
  EXPECT_EQ(Of(IORING_OP_NOP).completed, measured + 100);
}

TEST_F(IoLatencyTest, AFullRingBufferLosesEventsAndNothingElse) {
  BPFGRANT_AS_NOBODY();
  ASSERT_NO_FATAL_FAILURE(Acquire());
  SetThreshold(1);
  Ring ring(64);
  ring.RunNops(5000);
  const std::vector<io_latency_event> events = Events();
  EXPECT_EQ(Of(IORING_OP_NOP).completed, 5000u);
  EXPECT_EQ(Of(IORING_OP_NOP).lost, 5000u - events.size());
  EXPECT_GT(events.size(), 1000u);
  EXPECT_GT(Of(IORING_OP_NOP).lost, 1000u);
  // Read, it takes events again.
  ring.RunNops(10);
  EXPECT_EQ(Events().size(), 10u);
}

TEST_F(IoLatencyTest, SettingsRewrittenAllTheTime) {
  BPFGRANT_AS_NOBODY();
  ASSERT_NO_FATAL_FAILURE(Acquire());
  std::atomic<bool> done = false;
  std::thread rewriter([&] {
    for (uint64_t value = 1; !done; value = value * 6364136223846793005 + 1) {
      SetThreshold(value >> (value % 64));
    }
  });
  Ring ring(64);
  size_t events = 0, requests = 0;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (requests < 5000 ||
         (events < 1000 && std::chrono::steady_clock::now() < end)) {
    ring.RunNops(100);
    requests += 100;
    for (const io_latency_event& event : Events()) {
      ++events;
      EXPECT_EQ(event.opcode, uint32_t{IORING_OP_NOP});
      EXPECT_EQ(event.result, 0);
    }
  }
  done = true;
  rewriter.join();
  EXPECT_GE(events, 1000u);
  ExpectOnly({{IORING_OP_NOP, requests}});
}

// The session is the process's, whichever of its threads is left.
TEST_F(IoLatencyTest, GoesOnWhenTheFirstThreadHasEnded) {
  BPFGRANT_AS_NOBODY();
  const pid_t child = fork();
  if (child == 0) {
    auto connection = Connection::Connect({.path = SocketForNobody()});
    if (!connection.ok()) _exit(2);
    auto grant = connection->Acquire({.program = "io_latency",
                                      .interface = IO_LATENCY_INTERFACE,
                                      .delivery = v1::DELIVERY_PROCESS});
    if (!grant.ok()) _exit(3);
    const int fd = (*grant->Find("latencies"))->fd.get();
    std::thread([fd] {
      std::this_thread::sleep_for(milliseconds(200));
      Ring(8).RunNops(12);
      io_latency_histogram histogram{};
      const uint32_t nop = IORING_OP_NOP;
      bpf_map_lookup_elem(fd, &nop, &histogram);
      _exit(histogram.completed == 12 ? 0 : 4);
    }).detach();
    syscall(SYS_exit, 0);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace bpfgrant::test
