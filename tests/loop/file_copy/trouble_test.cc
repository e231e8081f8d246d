// Copies that do not come to their end, or not at once.

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <random>
#include <string>
#include <thread>

#include "tests/loop/file_copy/file_copy_fixture.h"

namespace bpfgrant::test {
namespace {

using FileCopyTroubleTest = FileCopyTest;

// From where it stopped.
void Resume(file_copy_memory& memory) {
  memory.job.extent = memory.outcome.extent;
  memory.job.skip = memory.outcome.skip;
}

TEST_P(FileCopyTroubleTest, LimitAndResume) {
  BPFGRANT_IN_PLACE();
  Fill(Content(10'000));
  Set(512, 4, {{0, 0, 3000}, {3000, 3000, FILE_COPY_TO_END}});
  job().limit = 1300;
  uint64_t bytes = 0;
  int runs = 0;
  do {
    ExpectDone();
    bytes += outcome().bytes;
    Resume(memory());
  } while (outcome().extent < 2 && ++runs < 20);
  EXPECT_EQ(bytes, 10'000u);
  EXPECT_EQ(runs, 7);
  ExpectSame();
}

TEST_P(FileCopyTroubleTest, Quit) {
  BPFGRANT_IN_PLACE();
  Fill(Content(10'000));
  Set(512, 4);
  job().quit = 1;
  ExpectDone();
  EXPECT_EQ(outcome().bytes, 0u);
  EXPECT_EQ(outcome().extent, 0u);
  job().quit = 0;
  Resume(memory());
  ExpectDone();
  ExpectSame();
}

// RLIMIT_FSIZE makes it full for this process; with many blocks under way.
TEST_P(FileCopyTroubleTest, DestinationFull) {
  BPFGRANT_IN_PLACE();
  constexpr rlim_t kRoom = 10'100;
  ASSERT_NE(signal(SIGXFSZ, SIG_IGN), SIG_ERR);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  for (const uint32_t lanes : {1, 8}) {
    Fill(Content(40'000));
    const rlimit room = {kRoom, before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &room), 0);
    Set(1000, lanes);
    ExpectError(FILE_COPY_NOT_WRITTEN, EFBIG);
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
    EXPECT_EQ(outcome().in_extent, 0u);
    EXPECT_EQ(outcome().error_at, kRoom);
    EXPECT_EQ(outcome().bytes, kRoom);
    EXPECT_EQ(outcome().short_writes, 1u);
    EXPECT_EQ(outcome().extent, 0u);
    EXPECT_EQ(outcome().skip, kRoom);
    Resume(memory());
    ExpectDone();
    EXPECT_EQ(outcome().bytes, 40'000 - kRoom);
    ExpectSame();
  }
}

TEST_P(FileCopyTroubleTest, NotReadable) {
  BPFGRANT_IN_PLACE();
  Fill(Content(5000));
  Set(512, 4, {{7, 9, 4000}});
  job().from_fd = to();  // which is for writing only
  ExpectError(FILE_COPY_NOT_READ, EBADF);
  EXPECT_EQ(outcome().error_at, 7u);
  EXPECT_EQ(outcome().skip, 0u);
  EXPECT_EQ(outcome().bytes, 0u);
}

TEST_P(FileCopyTroubleTest, NotWritable) {
  BPFGRANT_IN_PLACE();
  Fill(Content(5000));
  Set(512, 4, {{7, 9, 4000}});
  job().to_fd = from();
  ExpectError(FILE_COPY_NOT_WRITTEN, EBADF);
  EXPECT_EQ(outcome().error_at, 9u);
}

// The first extent is copied and the second one cannot be. That no file of this
// process may become so large does not hang on the file system: tmpfs and XFS
// go to the last offset there is.
TEST_P(FileCopyTroubleTest, ErrorInTheMiddle) {
  BPFGRANT_IN_PLACE();
  constexpr uint64_t kTooFar = (1ULL << 63) - 600;
  ASSERT_NE(signal(SIGXFSZ, SIG_IGN), SIG_ERR);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit room = {1 << 20, before.rlim_max};
  Fill(Content(5000));
  Set(512, 1, {{0, 0, 5000}, {0, kTooFar, 100}});
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &room), 0);
  const Loop::Stop stop = Run();
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  ASSERT_EQ(stop.why, BPFGRANT_STOP_ERROR);
  EXPECT_EQ(outcome().reason, FILE_COPY_NOT_WRITTEN);
  EXPECT_EQ(outcome().in_extent, 1u);
  EXPECT_EQ(outcome().error_at, kTooFar);
  EXPECT_EQ(outcome().bytes, 5000u);
  EXPECT_EQ(outcome().extent, 1u);
  EXPECT_EQ(outcome().skip, 0u);
  ExpectSame();
}

TEST_P(FileCopyTroubleTest, SourceIsShorterThanItsExtents) {
  BPFGRANT_IN_PLACE();
  Fill(Content(5000));
  Set(512, 4, {{0, 0, 9000}, {8000, 5000, 500}, {4900, 5000, 500}});
  ExpectDone();
  EXPECT_EQ(outcome().end, 5000u);
  EXPECT_EQ(outcome().bytes, 5100u);
  EXPECT_EQ(outcome().extent, 3u);
}

TEST_P(FileCopyTroubleTest, SourceShrinks) {
  BPFGRANT_IN_PLACE();
  const std::string content = Content(2 << 20);
  for (int run = 0; run < 10; ++run) {
    Fill(content);
    Set(4096, 8);
    std::thread shrinker([&] {
      for (off_t size = content.size(); size > 0; size -= 300'000) {
        EXPECT_EQ(truncate(source().c_str(), size), 0);
      }
    });
    ExpectDone();
    shrinker.join();
    EXPECT_LE(outcome().end, content.size());
    const std::string copied = ReadFile(destination());
    ASSERT_GE(copied.size(), outcome().end);
    // What is cut off is cleared first, and a read under way may see that.
    size_t wrong = 0;
    for (size_t i = 0; i < outcome().end; ++i) {
      wrong += copied[i] != content[i] && copied[i] != 0;
    }
    EXPECT_EQ(wrong, 0u);
  }
}

TEST_P(FileCopyTroubleTest, Mistakes) {
  BPFGRANT_IN_PLACE();
  const struct {
    file_copy_reason reason;
    uint32_t in_extent;
    std::function<void(file_copy_memory&)> make;
  } kMistakes[] = {
      {FILE_COPY_BAD_FLAGS, 0, [](auto& m) { m.job.flags = 8; }},
      {FILE_COPY_BAD_BLOCK, 0, [](auto& m) { m.job.block = 0; }},
      {FILE_COPY_BAD_BLOCK, 0,
       [](auto& m) { m.job.block = FILE_COPY_MAX_BLOCK + 1; }},
      {FILE_COPY_BAD_LANES, 0, [](auto& m) { m.job.lanes = 0; }},
      {FILE_COPY_BAD_LANES, 0,
       [](auto& m) { m.job.lanes = FILE_COPY_LANES + 1; }},
      {FILE_COPY_BAD_BUFFER, 0, [](auto& m) { m.job.buffer = 1; }},
      {FILE_COPY_BAD_BUFFER, 0,
       [](auto& m) {
         m.job.flags = FILE_COPY_BUFFER;
         m.job.buffer = 1 << 16;
       }},
      {FILE_COPY_BAD_EXTENTS, 0,
       [](auto& m) { m.job.extents = FILE_COPY_EXTENTS + 1; }},
      {FILE_COPY_BAD_EXTENTS, 0, [](auto& m) { m.job.extent = 3; }},
      {FILE_COPY_BAD_EXTENT, 1,
       [](auto& m) { m.extents[1].from = 1ULL << 63; }},
      {FILE_COPY_BAD_EXTENT, 1, [](auto& m) { m.extents[1].to = ~0ULL; }},
      {FILE_COPY_BAD_EXTENT, 0,
       [](auto& m) {
         m.extents[0] = {1, 0, ~0ULL >> 1};
       }},
      {FILE_COPY_BAD_SKIP, 1,
       [](auto& m) {
         m.job.extent = 1;
         m.job.skip = 101;
       }},
      {FILE_COPY_BAD_SKIP, 0,
       [](auto& m) {
         m.job.extent = 2;
         m.job.skip = 1;
       }},
  };
  Fill(Content(200));
  for (const auto& mistake : kMistakes) {
    SCOPED_TRACE(mistake.reason);
    Set(512, 4, {{0, 0, 100}, {100, 100, 100}});
    mistake.make(memory());
    ExpectError(mistake.reason, EINVAL);
    EXPECT_EQ(outcome().in_extent, mistake.in_extent);
  }
  Set(512, 4);
  ExpectDone();
  ExpectSame();
}

// Job, extents and the results in the ring change while it runs.
TEST_P(FileCopyTroubleTest, MemoryThatChanges) {
  BPFGRANT_IN_PLACE();
  constexpr size_t kQueueBytes = 64 + 128 * sizeof(io_uring_cqe);
  void* queue = mmap(nullptr, kQueueBytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                     loop().ring_fd(), IORING_OFF_CQ_RING);
  ASSERT_NE(queue, MAP_FAILED);
  auto* entries =
      reinterpret_cast<volatile io_uring_cqe*>(static_cast<char*>(queue) + 64);
  const UniqueFd zero(open("/dev/zero", O_RDONLY | O_CLOEXEC));
  const UniqueFd null(open("/dev/null", O_WRONLY | O_CLOEXEC));
  std::atomic<bool> stop = false;
  std::thread harm([&] {
    std::mt19937_64 random(4711);
    while (!stop) {
      const uint64_t value = random();
      // Most of them so that there is something to copy.
      memory().extents[value % 64] = {value >> 2, random() >> 2,
                                      random() >> (value >> 10 & 63)};
      memory().job.extents = 64 + (value >> 40 & 127);
      memory().job.extent = value >> 50 & 63;
      entries[value % 128].res = static_cast<__s32>(value >> 32);
    }
  });
  uint64_t copied = 0;
  // How much a run copies is chance: as many as it takes to have copied enough.
  for (int run = 0; run < 100 || (copied <= 100'000 && run < 10'000); ++run) {
    Set(16, 8, std::vector<file_copy_extent>(64, {0, 0, 100}));
    job().from_fd = zero.get();
    job().to_fd = null.get();
    job().limit = 20'000;
    const Loop::Stop why = Run();
    EXPECT_TRUE(why.why == BPFGRANT_STOP_DONE || why.why == BPFGRANT_STOP_ERROR)
        << Loop::Describe(why);
    copied += outcome().bytes;
  }
  stop = true;
  harm.join();
  EXPECT_GT(copied, 100'000u);
  munmap(queue, kQueueBytes);
  Fill(Content(5000));
  Set(512, 4);
  ExpectDone();
  ExpectSame();
}

BPFGRANT_PLACES(FileCopyTroubleTest);

}  // namespace
}  // namespace bpfgrant::test
