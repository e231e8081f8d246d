// Copies that come to their end, in all sizes and shapes.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "tests/loop/file_copy/file_copy_fixture.h"

namespace bpfgrant::test {
namespace {

using FileCopySizeTest = FileCopyTest;

TEST_P(FileCopySizeTest, AroundBlocks) {
  BPFGRANT_IN_PLACE();
  constexpr uint32_t kBlock = 512;
  for (const uint32_t lanes : {1, 2, 5, FILE_COPY_LANES}) {
    for (const size_t size :
         {0, 1, 511, 512, 513, 1023, 1024, 1025, 5119, 5120, 5121, 70'000}) {
      SCOPED_TRACE(testing::Message() << size << " bytes, " << lanes);
      Fill(Content(size));
      Set(kBlock, lanes);
      ExpectDone();
      ExpectSame();
      EXPECT_EQ(outcome().bytes, size);
      EXPECT_EQ(outcome().end, size);
      EXPECT_EQ(outcome().extent, 1u);
      EXPECT_EQ(outcome().skip, 0u);
    }
  }
}

TEST_P(FileCopySizeTest, OneEnterForALargeFile) {
  BPFGRANT_IN_PLACE();
  const std::string content = Content(size_t{8} << 20);
  Fill(content);
  Set(64 << 10, 16);
  const uint64_t enters = loop().enters();
  ExpectDone();
  ExpectSame();
  if (InKernel()) {
    EXPECT_EQ(loop().enters() - enters, 1u);
  }
}

TEST_P(FileCopySizeTest, BytesOneByOne) {
  BPFGRANT_IN_PLACE();
  Fill(Content(300));
  Set(1, 7);
  ExpectDone();
  ExpectSame();
}

TEST_P(FileCopySizeTest, TheLargestBlock) {
  BPFGRANT_IN_PLACE();
  Fill(Content(100'000));
  Set(4 << 20, 1);
  job().block = FILE_COPY_MAX_BLOCK;
  memory().extents[0].length = 100'000;
  ExpectDone();
  ExpectSame();
  EXPECT_EQ(outcome().end, ~0ULL);
}

TEST_P(FileCopySizeTest, ExtentsOfAnyOrder) {
  BPFGRANT_IN_PLACE();
  Fill("0123456789abcdef");
  Set(3, 4, {{8, 0, 4}, {0, 4, 0}, {0, 4, 8}, {12, 12, 4}});
  ExpectDone();
  EXPECT_EQ(ReadFile(destination()), "89ab01234567cdef");
  EXPECT_EQ(outcome().bytes, 16u);
}

TEST_P(FileCopySizeTest, NoExtents) {
  BPFGRANT_IN_PLACE();
  Fill("something");
  Set(512, 4, {});
  ExpectDone();
  EXPECT_EQ(outcome().bytes, 0u);
  // And none but empty ones, as many as there can be.
  Set(512, 4, std::vector<file_copy_extent>(FILE_COPY_EXTENTS));
  ExpectDone();
  EXPECT_EQ(outcome().bytes, 0u);
  EXPECT_EQ(outcome().extent, static_cast<uint32_t>(FILE_COPY_EXTENTS));
}

TEST_P(FileCopySizeTest, AsManyExtentsAsThereCanBe) {
  BPFGRANT_IN_PLACE();
  const std::string content = Content(FILE_COPY_EXTENTS * 3);
  Fill(content);
  std::vector<file_copy_extent> extents;
  for (uint64_t i = 0; i < FILE_COPY_EXTENTS; ++i) {
    extents.push_back({i * 3, (FILE_COPY_EXTENTS - 1 - i) * 3, 3});
  }
  Set(64, 32, extents);
  ExpectDone();
  std::string expected;
  for (size_t i = FILE_COPY_EXTENTS; i-- > 0;) {
    expected += content.substr(i * 3, 3);
  }
  EXPECT_TRUE(ReadFile(destination()) == expected);
}

// What lseek(2) knows, io_uring does not.
std::vector<file_copy_extent> DataOf(int file) {
  std::vector<file_copy_extent> extents;
  off_t data = 0;
  while ((data = lseek(file, data, SEEK_DATA)) >= 0) {
    const off_t hole = lseek(file, data, SEEK_HOLE);
    extents.push_back({static_cast<__u64>(data), static_cast<__u64>(data),
                       static_cast<__u64>(hole - data)});
    data = hole;
  }
  return extents;
}

TEST_P(FileCopySizeTest, HolesRemainHoles) {
  BPFGRANT_IN_PLACE();
  constexpr off_t kMegabyte = 1 << 20;
  Fill("");
  const UniqueFd sparse(open(source().c_str(), O_WRONLY | O_CLOEXEC));
  ASSERT_EQ(pwrite(sparse.get(), "near", 4, 0), 4);
  ASSERT_EQ(pwrite(sparse.get(), "far", 3, 16 * kMegabyte), 3);
  ASSERT_EQ(ftruncate(sparse.get(), 32 * kMegabyte), 0);
  Set(64 << 10, 8, DataOf(from()));
  ExpectDone();
  ASSERT_EQ(ftruncate(to(), 32 * kMegabyte), 0);
  ExpectSame();
  struct stat is {};
  ASSERT_EQ(fstat(to(), &is), 0);
  EXPECT_LT(is.st_blocks * 512, kMegabyte);
}

TEST_P(FileCopySizeTest, SlotsAndARegisteredBuffer) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Open(
      {.buffers = {{buffers(), buffer_bytes()}}, .files = {-1, from(), to()}}));
  Fill(Content(200'000));
  Set(16 << 10, 8);
  job().flags = FILE_COPY_FROM_SLOT | FILE_COPY_TO_SLOT | FILE_COPY_BUFFER;
  job().from_fd = 1;
  job().to_fd = 2;
  ExpectDone();
  ExpectSame();
}

// A pipe gives what it has.
TEST_P(FileCopySizeTest, ShortReadsAndWrites) {
  BPFGRANT_IN_PLACE();
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  const std::string content = Content(50'000);
  std::thread peer([&] {
    for (size_t at = 0; at < content.size(); at += 1000) {
      EXPECT_EQ(write(writer.get(), content.data() + at, 1000), 1000);
      if (at % 5000 == 0)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    writer.reset();
  });
  Set(8192, 1);
  job().from_fd = reader.get();
  ExpectDone();
  peer.join();
  EXPECT_TRUE(ReadFile(destination()) == content);
  EXPECT_GT(outcome().short_reads, 0u);
  // And takes what it has room for.
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  UniqueFd drain(ends[0]);
  UniqueFd into(ends[1]);
  ASSERT_GE(fcntl(into.get(), F_SETPIPE_SZ, 4096), 0);
  Fill(content);
  std::string drained;
  std::thread drainer([&] {
    char piece[777];
    ssize_t got;
    while ((got = read(drain.get(), piece, sizeof(piece))) > 0) {
      drained.append(piece, got);
    }
  });
  Set(8192, 1);
  job().to_fd = into.get();
  ExpectDone();
  into.reset();
  drainer.join();
  EXPECT_TRUE(drained == content);
}

BPFGRANT_PLACES(FileCopySizeTest);

}  // namespace
}  // namespace bpfgrant::test
