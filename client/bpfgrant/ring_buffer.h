// Reads a BPF ring buffer through its fd, without a call of bpf(2): it works
// under a seccomp filter that forbids that.
//
// The layout is the kernel's (kernel/bpf/ringbuf.c): one page for the
// consumer's position, one for the producer's, then the data, mapped twice in a
// row so that a sample never wraps. Only the first page is writable here.
//
// What is in the memory is checked before it is used: whatever stands there,
// reading stays inside the mapping and ends.

#ifndef BPFGRANT_RING_BUFFER_H_
#define BPFGRANT_RING_BUFFER_H_

#include <cstddef>
#include <cstdint>
#include <limits>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/bpfgrant/grant.h"

namespace bpfgrant {

class RingBuffer {
 public:
  using Callback = absl::FunctionRef<void(absl::Span<const std::byte>)>;

  // Maps the ring buffer of `handle`, which stays the grant's and must outlive
  // this. kInvalidArgument: not a ring buffer. kInternal: mmap(2) failed.
  static absl::StatusOr<RingBuffer> Map(const Grant::Handle& handle);
  // The same for any ring buffer's fd and size in bytes (a power of two).
  static absl::StatusOr<RingBuffer> Map(int fd, size_t bytes);

  RingBuffer(RingBuffer&& other) noexcept;
  RingBuffer& operator=(RingBuffer&&) = delete;
  ~RingBuffer();

  // Calls `callback` for each sample that is there, in order, `most` at most;
  // the bytes are valid until it returns. Returns how many there were: with
  // `most` there may be more, and nothing will wake a poll for those. One
  // thread at a time. kDataLoss: what stands there is no ring buffer's; nothing
  // more can be read.
  absl::StatusOr<size_t> Consume(
      Callback callback, size_t most = std::numeric_limits<size_t>::max());

  // For poll(2), epoll(7) or IORING_OP_POLL_ADD: readable when there is a
  // sample. Of a loop in the process: when one came that was to wake somebody.
  int fd() const { return fd_; }

 private:
  friend class LoopEvents;
  friend class RingBufferTestPeer;
  // Of a loop in this process, whose fd is an eventfd(2). Owns the mappings.
  static RingBuffer OfLoop(int fd, size_t bytes, void* consumer,
                           const void* producer);
  RingBuffer(int fd, size_t bytes, void* consumer, const void* producer);

  int fd_;
  size_t bytes_;
  void* consumer_;
  const void* producer_;  // the data follows a page later
  bool of_loop_ = false;
};

}  // namespace bpfgrant

#endif  // BPFGRANT_RING_BUFFER_H_
