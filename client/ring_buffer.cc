#include "client/bpfgrant/ring_buffer.h"

#include <linux/bpf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/numeric/bits.h"
#include "absl/strings/str_cat.h"
#include "bpfgrant/loop_events.h"

namespace bpfgrant {
namespace {

size_t PageSize() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

absl::Status Broken(uint32_t length, uint64_t at) {
  return absl::DataLossError(absl::StrCat("the ring buffer holds a sample of ",
                                          length, " bytes at position ", at,
                                          ", which cannot be"));
}

}  // namespace

absl::StatusOr<RingBuffer> RingBuffer::Map(const Grant::Handle& handle) {
  if (handle.description.kind() != v1::HANDLE_KIND_RING_BUFFER) {
    return absl::InvalidArgumentError(absl::StrCat(
        "handle '", handle.description.name(), "' is not a ring buffer"));
  }
  return Map(handle.fd.get(), handle.description.max_entries());
}

absl::StatusOr<RingBuffer> RingBuffer::Map(int fd, size_t bytes) {
  const size_t page = PageSize();
  // A map's max_entries has 32 bits.
  if (!absl::has_single_bit(bytes) || bytes < page || bytes > 1u << 31) {
    return absl::InvalidArgumentError(
        absl::StrCat(bytes, " is no size of a ring buffer"));
  }
  void* consumer =
      mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (consumer == MAP_FAILED) {
    return absl::InternalError(
        absl::StrCat("mmap of a ring buffer: ", std::strerror(errno)));
  }
  void* producer = mmap(nullptr, page + 2 * bytes, PROT_READ, MAP_SHARED, fd,
                        static_cast<off_t>(page));
  if (producer == MAP_FAILED) {
    const int error = errno;
    munmap(consumer, page);
    return absl::InternalError(
        absl::StrCat("mmap of a ring buffer: ", std::strerror(error)));
  }
  return RingBuffer(fd, bytes, consumer, producer);
}

RingBuffer::RingBuffer(int fd, size_t bytes, void* consumer,
                       const void* producer)
    : fd_(fd), bytes_(bytes), consumer_(consumer), producer_(producer) {}

RingBuffer::RingBuffer(RingBuffer&& other) noexcept
    : fd_(other.fd_),
      bytes_(other.bytes_),
      consumer_(std::exchange(other.consumer_, nullptr)),
      producer_(std::exchange(other.producer_, nullptr)),
      of_loop_(other.of_loop_) {}

RingBuffer::~RingBuffer() {
  if (consumer_ == nullptr) return;
  munmap(consumer_, PageSize());
  munmap(const_cast<void*>(producer_), PageSize() + 2 * bytes_);
}

RingBuffer RingBuffer::OfLoop(int fd, size_t bytes, void* consumer,
                              const void* producer) {
  RingBuffer ring_buffer(fd, bytes, consumer, producer);
  ring_buffer.of_loop_ = true;
  return ring_buffer;
}

absl::StatusOr<size_t> RingBuffer::Consume(Callback callback, size_t most) {
  auto* const consumer = static_cast<unsigned long*>(consumer_);
  const auto* const producer = static_cast<const unsigned long*>(producer_);
  const auto* const data =
      static_cast<const std::byte*>(producer_) + PageSize();
  unsigned long position = __atomic_load_n(consumer, __ATOMIC_ACQUIRE);
  size_t taken = 0;
  if (of_loop_) bpfgrant_events_empty(consumer_, fd_);
  while (taken < most) {
    const unsigned long end = __atomic_load_n(producer, __ATOMIC_ACQUIRE);
    if (position == end) break;
    const unsigned long available = end - position;
    const std::byte* const header = data + (position & (bytes_ - 1));
    if (available > bytes_ || available < BPF_RINGBUF_HDR_SZ ||
        (position & 7) != 0) {
      return Broken(0, position);
    }
    // The length is read once: what is checked is what is used.
    const uint32_t word = __atomic_load_n(
        reinterpret_cast<const uint32_t*>(header), __ATOMIC_ACQUIRE);
    if ((word & BPF_RINGBUF_BUSY_BIT) != 0) break;
    const uint32_t length =
        word & ~(BPF_RINGBUF_BUSY_BIT | BPF_RINGBUF_DISCARD_BIT);
    const size_t whole = (size_t{length} + BPF_RINGBUF_HDR_SZ + 7) & ~size_t{7};
    if (whole > available) return Broken(length, position);
    if ((word & BPF_RINGBUF_DISCARD_BIT) == 0) {
      callback({header + BPF_RINGBUF_HDR_SZ, length});
      ++taken;
    }
    position += whole;
    __atomic_store_n(consumer, position, __ATOMIC_RELEASE);
    // The producer wakes us only if it sees that we had come this far; so the
    // position has to be out before its next word is looked at
    // (bpf_ringbuf_commit).
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
  }
  return taken;
}

}  // namespace bpfgrant
