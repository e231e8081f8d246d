// Ring buffers of both kinds, by the C library.

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "client/bpfgrant/bpfgrant.h"
#include "gtest/gtest.h"

namespace bpfgrant::test {
namespace {

// A file in place of the map: what is in it is the same.
class RingsTest : public ::testing::Test {
 protected:
  static constexpr size_t kBytes = 65536;
  void SetUp() override {
    page_ = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    fd_ = memfd_create("ring buffer", MFD_CLOEXEC);
    ASSERT_EQ(ftruncate(fd_, static_cast<off_t>(2 * page_ + 2 * kBytes)), 0);
    memory_ =
        static_cast<char*>(mmap(nullptr, 2 * page_ + 2 * kBytes,
                                PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0));
    ASSERT_NE(memory_, MAP_FAILED);
  }
  void TearDown() override {
    munmap(memory_, 2 * page_ + 2 * kBytes);
    close(fd_);
  }
  void Put(const std::string& sample) {
    const auto length = static_cast<uint32_t>(sample.size());
    char* const at = memory_ + 2 * page_ + end_;
    std::memcpy(at, &length, sizeof(length));
    std::memcpy(at + 8, sample.data(), sample.size());
    end_ += (sample.size() + 15) & ~7UL;
    std::memcpy(memory_ + page_, &end_, sizeof(end_));
  }

  size_t page_ = 0;
  int fd_ = -1;
  char* memory_ = nullptr;
  unsigned long end_ = 0;
  bpfgrant_error error_ = BPFGRANT_ERROR_INIT;
};

void Keep(void* context, const void* bytes, size_t length) {
  static_cast<std::vector<std::string>*>(context)->emplace_back(
      static_cast<const char*>(bytes), length);
}

TEST_F(RingsTest, SamplesAreShownInTheirOrder) {
  bpfgrant_ring_buffer* ring_buffer = nullptr;
  ASSERT_EQ(bpfgrant_ring_buffer_map(fd_, kBytes, &ring_buffer, &error_), 0);
  EXPECT_EQ(bpfgrant_ring_buffer_fd(ring_buffer), fd_);
  Put("first");
  Put("");
  Put("third");
  std::vector<std::string> seen;
  EXPECT_EQ(bpfgrant_ring_buffer_consume(ring_buffer, Keep, &seen, 2, &error_),
            2);
  EXPECT_EQ(bpfgrant_ring_buffer_consume(ring_buffer, Keep, &seen, 0, &error_),
            1);
  EXPECT_EQ(bpfgrant_ring_buffer_consume(ring_buffer, Keep, &seen, 0, &error_),
            0);
  EXPECT_EQ(seen, (std::vector<std::string>{"first", "", "third"}));
  end_ += 3;
  std::memcpy(memory_ + page_, &end_, sizeof(end_));
  EXPECT_EQ(bpfgrant_ring_buffer_consume(ring_buffer, Keep, &seen, 0, &error_),
            -EBADMSG);
  bpfgrant_ring_buffer_free(ring_buffer);
  EXPECT_EQ(bpfgrant_ring_buffer_map(fd_, kBytes + 1, &ring_buffer, &error_),
            -EINVAL);
  EXPECT_EQ(ring_buffer, nullptr);
}

TEST_F(RingsTest, WhatIsSubmittedStandsThere) {
  bpfgrant_user_ring_buffer* ring_buffer = nullptr;
  ASSERT_EQ(bpfgrant_user_ring_buffer_map(fd_, kBytes, &ring_buffer, &error_),
            0);
  EXPECT_EQ(bpfgrant_user_ring_buffer_max_sample(ring_buffer), kBytes - 8);
  void* sample = nullptr;
  ASSERT_EQ(bpfgrant_user_ring_buffer_reserve(ring_buffer, 5, &sample, &error_),
            0);
  std::memcpy(sample, "hello", 5);
  bpfgrant_user_ring_buffer_submit(ring_buffer, sample, 5);
  EXPECT_EQ(std::memcmp(memory_ + 2 * page_, "\5\0\0\0\0\0\0\0hello", 13), 0);
  ASSERT_EQ(bpfgrant_user_ring_buffer_reserve(ring_buffer, 8, &sample, &error_),
            0);
  bpfgrant_user_ring_buffer_discard(ring_buffer, sample, 8);
  EXPECT_EQ(bpfgrant_user_ring_buffer_pending(ring_buffer), 32u);
  EXPECT_EQ(
      bpfgrant_user_ring_buffer_reserve(ring_buffer, kBytes, &sample, &error_),
      -EINVAL);
  EXPECT_EQ(sample, nullptr);
  EXPECT_EQ(bpfgrant_user_ring_buffer_reserve(ring_buffer, kBytes - 8, &sample,
                                              &error_),
            -ENOBUFS);
  bpfgrant_user_ring_buffer_free(ring_buffer);
}

}  // namespace
}  // namespace bpfgrant::test
