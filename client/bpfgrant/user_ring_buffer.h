// Writes into a BPF user ring buffer through its fd, without a call of bpf(2):
// how a process hands data to a program that it holds.
//
// The layout is the kernel's (kernel/bpf/ringbuf.c): one page for the
// consumer's position, which is the kernel's and read-only here, one for the
// producer's, then the data, mapped twice in a row so that a sample never
// wraps. Each sample has a header of 8 bytes and takes a multiple of 8.
//
// Samples wait in the ring buffer until a program drains it
// (bpf_user_ringbuf_drain): at most 131072 a run, those discarded included.
// What makes the program run is its own affair: a packet, a step of a loop, or
// BPF_PROG_TEST_RUN on the program's fd.

#ifndef BPFGRANT_USER_RING_BUFFER_H_
#define BPFGRANT_USER_RING_BUFFER_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/bpfgrant/grant.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant {

class UserRingBuffer {
 public:
  using Deadline = std::optional<std::chrono::steady_clock::time_point>;

  // The largest sample that the kernel hands to a program, in bytes; it stops
  // at a larger one, for ever (DYNPTR_MAX_SIZE, include/linux/bpf.h).
  static constexpr size_t kMaxSampleBytes = (1u << 24) - 1;

  // Maps the ring buffer of `handle`, which stays the grant's and must outlive
  // this. kInvalidArgument: not a user ring buffer. kInternal: mmap(2) failed.
  static absl::StatusOr<UserRingBuffer> Map(const Grant::Handle& handle);
  // The same for any user ring buffer's fd and size in bytes (a power of two).
  static absl::StatusOr<UserRingBuffer> Map(int fd, size_t bytes);

  UserRingBuffer(UserRingBuffer&& other) noexcept;
  UserRingBuffer& operator=(UserRingBuffer&&) = delete;
  ~UserRingBuffer();

  // Room for a sample of `bytes`, behind all that was reserved before; write it
  // and Submit or Discard it. A program sees samples in the order in which they
  // were reserved, and none behind one that is still reserved. One thread at a
  // time, in one process.
  //
  // kInvalidArgument: no sample can be so large here (max_sample_bytes).
  // kResourceExhausted: there is no room now. kDataLoss: what stands there is
  // no ring buffer's: somebody else writes it.
  absl::StatusOr<absl::Span<std::byte>> Reserve(size_t bytes);
  // Waits for room as long as it takes: for a program that drains the ring
  // buffer and wakes (it does unless it says BPF_RB_NO_WAKEUP). Without a
  // deadline, for ever. kDeadlineExceeded; kCancelled: a signal came.
  absl::StatusOr<absl::Span<std::byte>> ReserveBlocking(
      size_t bytes, Deadline deadline = std::nullopt);

  // Of a span that Reserve gave, each exactly once, in any order and from any
  // thread. A discarded sample is skipped by the kernel.
  void Submit(absl::Span<std::byte> sample);
  void Discard(absl::Span<std::byte> sample);

  // Turns what somebody reserved and never submitted into discarded samples,
  // and says how many: for a process that goes on with the ring buffer of one
  // that died. Only while nobody else writes it.
  absl::StatusOr<size_t> DiscardAbandoned();

  // Bytes that are waiting, headers included.
  size_t pending() const;
  size_t max_sample_bytes() const;

  // For poll(2), epoll(7) or IORING_OP_POLL_ADD: writable (POLLOUT) when there
  // is any room at all. Who waits for more than that wants EPOLLET, which tells
  // of each drain.
  int fd() const { return fd_; }

 private:
  UserRingBuffer(int fd, size_t bytes, const void* consumer, void* producer);

  uint32_t* HeaderAt(unsigned long position) const;
  uint32_t* HeaderOf(absl::Span<std::byte> sample) const;
  absl::Status WaitForDrain(Deadline deadline);

  int fd_;
  size_t bytes_;
  const void* consumer_;
  void* producer_;    // the data follows a page later
  UniqueFd drained_;  // an epoll(7) on fd_, once somebody waited
};

}  // namespace bpfgrant

#endif  // BPFGRANT_USER_RING_BUFFER_H_
