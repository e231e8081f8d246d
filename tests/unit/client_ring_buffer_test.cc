// RingBuffer over memory that this test writes as the kernel would
// (kernel/bpf/ringbuf.c), and as no kernel would.

#include <linux/bpf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/bpfgrant/ring_buffer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant {

// The way to RingBuffer's constructor.
class RingBufferTestPeer {
 public:
  static RingBuffer Make(int fd, size_t bytes, void* consumer,
                         const void* producer) {
    return RingBuffer(fd, bytes, consumer, producer);
  }
};

namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class ClientRingBufferTest : public ::testing::Test {
 protected:
  // The RingBuffer unmaps what it is given, so the kernel's side has mappings
  // of its own of the same memory.
  void SetUp() override {
    page_ = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    size_ = page_;
    file_ = UniqueFd(memfd_create("ring", MFD_CLOEXEC));
    ASSERT_TRUE(file_.valid());
    ASSERT_EQ(ftruncate(file_.get(), static_cast<off_t>(2 * page_ + size_)), 0);
    consumer_ = static_cast<unsigned long*>(MapAt(nullptr, page_, 0));
    kernel_ = MapPair(PROT_READ | PROT_WRITE);
    ASSERT_NE(kernel_, nullptr);
    producer_ = reinterpret_cast<unsigned long*>(kernel_);
  }

  void TearDown() override {
    munmap(consumer_, page_);
    munmap(kernel_, page_ + 2 * size_);
  }

  RingBuffer Ring() {
    return RingBufferTestPeer::Make(
        file_.get(), size_, MapAt(nullptr, page_, 0), MapPair(PROT_READ));
  }

  // Starts both positions there, as after so many bytes of traffic.
  void StartAt(unsigned long position) {
    __atomic_store_n(consumer_, position, __ATOMIC_RELEASE);
    __atomic_store_n(producer_, position, __ATOMIC_RELEASE);
  }

  // bpf_ringbuf_reserve, _submit and _discard: `flags` are the header's bits.
  // Returns where the record stands.
  unsigned long Write(std::string_view bytes, uint32_t flags = 0) {
    const unsigned long at = *producer_;
    std::memcpy(Data(at) + BPF_RINGBUF_HDR_SZ, bytes.data(), bytes.size());
    SetHeader(at, static_cast<uint32_t>(bytes.size()) | flags);
    const unsigned long whole = (bytes.size() + BPF_RINGBUF_HDR_SZ + 7) & ~7UL;
    __atomic_store_n(producer_, at + whole, __ATOMIC_RELEASE);
    return at;
  }
  void SetHeader(unsigned long at, uint32_t word) {
    __atomic_store_n(reinterpret_cast<uint32_t*>(Data(at)), word,
                     __ATOMIC_RELEASE);
  }
  char* Data(unsigned long at) { return kernel_ + page_ + (at & (size_ - 1)); }

  static absl::StatusOr<std::vector<std::string>> Read(
      RingBuffer& ring, size_t most = std::numeric_limits<size_t>::max()) {
    std::vector<std::string> records;
    const absl::StatusOr<size_t> count = ring.Consume(
        [&](absl::Span<const std::byte> record) {
          records.emplace_back(reinterpret_cast<const char*>(record.data()),
                               record.size());
        },
        most);
    if (!count.ok()) return count.status();
    EXPECT_EQ(*count, records.size());
    return records;
  }

  unsigned long consumed() const {
    return __atomic_load_n(consumer_, __ATOMIC_ACQUIRE);
  }

  size_t page_ = 0;
  size_t size_ = 0;
  UniqueFd file_;
  unsigned long* consumer_ = nullptr;
  unsigned long* producer_ = nullptr;
  char* kernel_ = nullptr;

 private:
  void* MapAt(void* at, size_t length, size_t offset,
              int protection = PROT_READ | PROT_WRITE) {
    void* memory = mmap(at, length, protection,
                        MAP_SHARED | (at == nullptr ? 0 : MAP_FIXED),
                        file_.get(), static_cast<off_t>(offset));
    return memory == MAP_FAILED ? nullptr : memory;
  }

  // The producer's page, and the data twice.
  char* MapPair(int protection) {
    void* whole = mmap(nullptr, page_ + 2 * size_, PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (whole == MAP_FAILED) return nullptr;
    auto* const at = static_cast<char*>(whole);
    if (MapAt(at, page_ + size_, page_, protection) == nullptr ||
        MapAt(at + page_ + size_, size_, 2 * page_, protection) == nullptr) {
      return nullptr;
    }
    return at;
  }
};

TEST_F(ClientRingBufferTest, AnEmptyOneHasNothing) {
  RingBuffer ring = Ring();
  const auto records = Read(ring);
  ASSERT_TRUE(records.ok()) << records.status();
  EXPECT_THAT(*records, IsEmpty());
  EXPECT_EQ(consumed(), 0u);
}

TEST_F(ClientRingBufferTest, RecordsComeInOrderAndAreFreed) {
  RingBuffer ring = Ring();
  Write("first");
  Write("");
  const unsigned long last = Write("a third of 24 bytes.....");
  EXPECT_THAT(*Read(ring),
              ElementsAre("first", "", "a third of 24 bytes....."));
  EXPECT_EQ(consumed(), last + 32);
  EXPECT_THAT(*Read(ring), IsEmpty());
}

TEST_F(ClientRingBufferTest, ARecordAcrossTheEndIsInOnePiece) {
  StartAt(size_ - 16);
  RingBuffer ring = Ring();
  const std::string record = "begins before the end and goes on at the start";
  Write(record);
  Write("next");
  EXPECT_THAT(*Read(ring), ElementsAre(record, "next"));
}

TEST_F(ClientRingBufferTest, ManyRoundsLoseNothing) {
  RingBuffer ring = Ring();
  for (int round = 0; round < 5000; ++round) {
    const std::string record(static_cast<size_t>(round % 300),
                             static_cast<char>('a' + round % 26));
    Write(record);
    ASSERT_THAT(*Read(ring), ElementsAre(record)) << "round " << round;
  }
  EXPECT_GT(consumed(), 100 * size_);
}

TEST_F(ClientRingBufferTest, PositionsMayPassTheEndOfTheirType) {
  StartAt(std::numeric_limits<unsigned long>::max() - 15);
  RingBuffer ring = Ring();
  Write("eight by");
  Write("beyond");
  EXPECT_THAT(*Read(ring), ElementsAre("eight by", "beyond"));
  EXPECT_EQ(consumed(), 16u);
}

TEST_F(ClientRingBufferTest, AFullOneIsReadWhole) {
  RingBuffer ring = Ring();
  const std::string record(size_ - BPF_RINGBUF_HDR_SZ, 'x');
  Write(record);
  EXPECT_THAT(*Read(ring), ElementsAre(record));
}

TEST_F(ClientRingBufferTest, ABusyRecordHoldsUpThoseBehindIt) {
  RingBuffer ring = Ring();
  Write("done");
  const unsigned long busy = Write("later", BPF_RINGBUF_BUSY_BIT);
  Write("behind");
  EXPECT_THAT(*Read(ring), ElementsAre("done"));
  EXPECT_EQ(consumed(), busy);
  EXPECT_THAT(*Read(ring), IsEmpty());
  SetHeader(busy, 5);
  EXPECT_THAT(*Read(ring), ElementsAre("later", "behind"));
}

TEST_F(ClientRingBufferTest, DiscardedRecordsAreSkippedAndFreed) {
  RingBuffer ring = Ring();
  Write("no", BPF_RINGBUF_DISCARD_BIT);
  Write("yes");
  Write("no", BPF_RINGBUF_DISCARD_BIT);
  EXPECT_THAT(*Read(ring), ElementsAre("yes"));
  EXPECT_EQ(consumed(), *producer_);
}

TEST_F(ClientRingBufferTest, DiscardedRecordsDoNotCount) {
  RingBuffer ring = Ring();
  Write("no", BPF_RINGBUF_DISCARD_BIT);
  Write("one");
  Write("two");
  EXPECT_THAT(*Read(ring, 1), ElementsAre("one"));
  EXPECT_THAT(*Read(ring, 1), ElementsAre("two"));
}

TEST_F(ClientRingBufferTest, NoMoreThanAskedForAreTaken) {
  RingBuffer ring = Ring();
  for (const char* record : {"a", "b", "c"}) Write(record);
  EXPECT_THAT(*Read(ring, 0), IsEmpty());
  EXPECT_EQ(consumed(), 0u);
  EXPECT_THAT(*Read(ring, 2), ElementsAre("a", "b"));
  EXPECT_EQ(consumed(), 32u);
  EXPECT_THAT(*Read(ring, 2), ElementsAre("c"));
}

TEST_F(ClientRingBufferTest, ALengthBeyondWhatIsThereIsRefused) {
  RingBuffer ring = Ring();
  Write("good");
  const unsigned long bad = Write("bad");
  for (const uint32_t length : {9u, 4096u, 0x3fffffffu}) {
    SetHeader(bad, length);
    size_t read = 0;
    const auto count =
        ring.Consume([&](absl::Span<const std::byte>) { ++read; });
    EXPECT_TRUE(absl::IsDataLoss(count.status())) << count.status();
    EXPECT_EQ(consumed(), bad) << "not a byte further";
    EXPECT_LE(read, 1u);
  }
}

TEST_F(ClientRingBufferTest, ADiscardedGarbageLengthIsRefusedAsWell) {
  RingBuffer ring = Ring();
  const unsigned long bad = Write("bad");
  SetHeader(bad, 0x3fffffffu | BPF_RINGBUF_DISCARD_BIT);
  EXPECT_TRUE(absl::IsDataLoss(Read(ring).status()));
}

TEST_F(ClientRingBufferTest, PositionsThatContradictEachOtherAreRefused) {
  struct Case {
    const char* what;
    unsigned long consumer;
    unsigned long producer;
  };
  for (const Case& positions : {
           Case{"producer behind consumer", 64, 0},
           Case{"more than the size apart", 0, size_ + 8},
           Case{"far apart", 0, std::numeric_limits<unsigned long>::max()},
           Case{"less than a header apart", 0, 4},
           Case{"consumer misaligned", 4, 64},
           Case{"consumer misaligned at the end", size_ - 4, size_ + 60},
       }) {
    SCOPED_TRACE(positions.what);
    *consumer_ = positions.consumer;
    *producer_ = positions.producer;
    RingBuffer ring = Ring();
    EXPECT_TRUE(absl::IsDataLoss(Read(ring).status()));
    EXPECT_EQ(consumed(), positions.consumer);
  }
}

// Every word as a length, wherever the record starts: reading stays inside
// (the pages beyond are not mapped) and ends.
TEST_F(ClientRingBufferTest, GarbageNeverLeadsOutside) {
  uint32_t state = 1;
  const auto random = [&] {
    state = state * 1664525u + 1013904223u;
    return state;
  };
  unsigned long sum = 0;
  for (int round = 0; round < 2000; ++round) {
    for (size_t at = 0; at < size_; at += 4) {
      const uint32_t word = random() >> (random() % 32);
      std::memcpy(kernel_ + page_ + at, &word, sizeof(word));
    }
    *consumer_ = random() & ~7u;
    *producer_ = *consumer_ + (random() % (size_ / 8 + 1)) * 8;
    RingBuffer ring = Ring();
    size_t bytes = 0;
    ring.Consume([&](absl::Span<const std::byte> record) {
          bytes += record.size();
          for (const std::byte byte : record) {
            sum += static_cast<unsigned long>(byte);
          }
        })
        .status()
        .IgnoreError();
    ASSERT_LE(bytes, size_);
  }
  // The bytes were read, whatever the optimizer thinks of it.
  EXPECT_GT(sum, 0u);
}

TEST_F(ClientRingBufferTest, AWriterBesideTheReaderLosesNothing) {
  RingBuffer ring = Ring();
  constexpr int kRecords = 20000;
  std::thread writer([&] {
    for (int i = 0; i < kRecords; ++i) {
      const std::string record = std::to_string(i);
      while (*producer_ + 64 - consumed() > size_) std::this_thread::yield();
      // Reserved first and committed afterwards, as the kernel does it.
      const unsigned long at = Write(record, BPF_RINGBUF_BUSY_BIT);
      SetHeader(at, static_cast<uint32_t>(record.size()));
    }
  });
  int next = 0;
  while (next < kRecords) {
    const auto records = Read(ring);
    if (!records.ok()) {
      ADD_FAILURE() << records.status();
      break;
    }
    for (const std::string& record : *records) {
      EXPECT_EQ(record, std::to_string(next));
      ++next;
    }
    if (records->empty()) std::this_thread::yield();
  }
  // The writer waits for room only while the reader reads.
  if (next < kRecords) *consumer_ = *producer_;
  writer.join();
  EXPECT_EQ(next, kRecords);
}

TEST_F(ClientRingBufferTest, AMovedOneReadsOn) {
  RingBuffer first = Ring();
  Write("one");
  EXPECT_THAT(*Read(first), ElementsAre("one"));
  RingBuffer second = std::move(first);
  Write("two");
  EXPECT_THAT(*Read(second), ElementsAre("two"));
  EXPECT_EQ(second.fd(), file_.get());
}

TEST_F(ClientRingBufferTest, SizesOfNoRingBufferAreRefused) {
  for (const size_t size : {size_t{0}, page_ / 2, page_ + 8, 3 * page_}) {
    EXPECT_TRUE(
        absl::IsInvalidArgument(RingBuffer::Map(file_.get(), size).status()))
        << size;
  }
}

TEST_F(ClientRingBufferTest, WhatCannotBeMappedIsRefused) {
  EXPECT_TRUE(absl::IsInternal(RingBuffer::Map(-1, page_).status()));
  Grant::Handle handle;
  handle.description.set_name("counts");
  handle.description.set_kind(v1::HANDLE_KIND_ARRAY);
  handle.description.set_max_entries(static_cast<uint32_t>(page_));
  EXPECT_TRUE(absl::IsInvalidArgument(RingBuffer::Map(handle).status()));
}

}  // namespace
}  // namespace bpfgrant
