// A client without privilege with a user ring buffer, and a program that drains
// it.

#ifndef TESTS_PRIVILEGED_USER_RING_BUFFER_FIXTURE_H_
#define TESTS_PRIVILEGED_USER_RING_BUFFER_FIXTURE_H_

#include <linux/bpf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "client/bpfgrant/grant.h"
#include "client/bpfgrant/mapped_array.h"
#include "client/bpfgrant/user_ring_buffer.h"
#include "gtest/gtest.h"
#include "tests/harness/as_nobody.h"
#include "tests/privileged/user_ring_buffer/drainer.h"

namespace bpfgrant::test {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

// BPF_MAX_USER_RINGBUF_SAMPLES (kernel/bpf/ringbuf.c).
inline constexpr uint64_t kMostSamples = 128 * 1024;
inline constexpr size_t kHalf = DRAINER_BYTES / 2;

// The catalog of a daemon that NobodyTest starts itself.
[[maybe_unused]] inline const int catalog =
    setenv("BPFGRANT_TEST_CATALOG", DRAINER_CATALOG, /*replace=*/1);

class UserRingBufferTest : public NobodyTest {
 protected:
  UserRingBufferTest() : NobodyTest("drainer") {}

  void SetUp() override {
    NobodyTest::SetUp();
    if (!IsNobody() || HasFatalFailure()) return;
    auto grant =
        connection().Acquire({.program = "drainer", .interface = "drainer/1"});
    ASSERT_TRUE(grant.ok()) << grant.status();
    grant_.emplace(*std::move(grant));
    ASSERT_GE(grant_->program_fd(), 0);
    const auto page = grant_->Find("page");
    ASSERT_TRUE(page.ok()) << page.status();
    auto mapped = MappedArray::Map(**page);
    ASSERT_TRUE(mapped.ok()) << mapped.status();
    page_.emplace(*std::move(mapped));
    ASSERT_NO_FATAL_FAILURE(MapRing());
  }

  void MapRing() {
    auto ring = UserRingBuffer::Map(Input());
    ASSERT_TRUE(ring.ok()) << ring.status();
    ring_.emplace(*std::move(ring));
  }
  const Grant::Handle& Input() const { return **grant_->Find("input"); }

  // Runs the program, which drains: what the kernel said of that.
  int64_t Drain() {
    RunProgram();
    return __atomic_load_n(&page().last, __ATOMIC_ACQUIRE);
  }
  void RunProgram() {
    const char data[64] = {};
    bpf_attr attributes{};
    attributes.test.prog_fd = static_cast<uint32_t>(grant_->program_fd());
    attributes.test.data_in = reinterpret_cast<uintptr_t>(data);
    attributes.test.data_size_in = sizeof(data);
    ASSERT_EQ(
        syscall(SYS_bpf, BPF_PROG_TEST_RUN, &attributes, sizeof(attributes)), 0)
        << std::strerror(errno);
  }

  void Write(uint64_t value) {
    auto sample = ring_->Reserve(sizeof(value));
    ASSERT_TRUE(sample.ok()) << sample.status();
    std::memcpy(sample->data(), &value, sizeof(value));
    ring_->Submit(*sample);
  }
  void Skip(size_t bytes) {
    auto sample = ring_->Reserve(bytes);
    ASSERT_TRUE(sample.ok()) << sample.status();
    ring_->Discard(*sample);
  }
  void Fill(uint64_t samples, bool discard) {
    for (uint64_t i = 0; i < samples; ++i) {
      auto sample = ring_->Reserve(0);
      ASSERT_TRUE(sample.ok()) << sample.status();
      discard ? ring_->Discard(*sample) : ring_->Submit(*sample);
    }
  }

  // Leaves room for an empty sample.
  void FillButEight(bool discard) {
    for (const size_t bytes : {kHalf - 16, kHalf - 8}) {
      auto sample = ring_->Reserve(bytes);
      ASSERT_TRUE(sample.ok()) << sample.status();
      discard ? ring_->Discard(*sample) : ring_->Submit(*sample);
    }
    ASSERT_EQ(ring_->pending(), DRAINER_BYTES - 8u);
  }

  drainer_page& page() { return *page_->At<drainer_page>(0); }

  // The producer's page and the data behind it, as whoever does not use the
  // library writes them.
  std::byte* Raw() {
    static void* const raw =
        mmap(nullptr, 4096 + DRAINER_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
             Input().fd.get(), 4096);
    EXPECT_NE(raw, MAP_FAILED);
    return static_cast<std::byte*>(raw);
  }
  unsigned long& Producer() { return *reinterpret_cast<unsigned long*>(Raw()); }
  uint32_t& HeaderAt(unsigned long position) {
    return *reinterpret_cast<uint32_t*>(Raw() + 4096 +
                                        position % DRAINER_BYTES);
  }

  std::optional<Grant> grant_;
  std::optional<MappedArray> page_;
  std::optional<UserRingBuffer> ring_;
  bool woken_ = false;
};

// --- Rightly -----------------------------------------------------------------

}  // namespace bpfgrant::test

#endif  // TESTS_PRIVILEGED_USER_RING_BUFFER_FIXTURE_H_
