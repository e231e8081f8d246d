// The ring of a loop in the kernel: made disabled, for the daemon to restrict,
// and from then on entered by one thread. The loop submits; here is only what
// the process needs of it.
//
// Not liburing's: what Debian 12 has writes an array of submissions into the
// ring's header where the ring was made with IORING_SETUP_NO_SQARRAY.

#ifndef CLIENT_LOOP_RING_H_
#define CLIENT_LOOP_RING_H_

#include <liburing.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant {

class LoopRing {
 public:
  // kInternal: io_uring_setup(2) or mmap(2) failed, with the errno. The numbers
  // of entries must be powers of two.
  static absl::StatusOr<LoopRing> Make(uint32_t setup_flags,
                                       uint32_t sq_entries,
                                       uint32_t cq_entries);
  LoopRing(LoopRing&& other) noexcept;
  LoopRing& operator=(LoopRing&&) = delete;
  ~LoopRing();

  // io_uring_register(2), before Enable. kInternal: with the errno and what it
  // may mean.
  absl::Status RegisterMemory(absl::Span<std::byte> memory);
  absl::Status RegisterBuffers(const std::vector<iovec>& buffers);
  absl::Status RegisterFiles(const std::vector<int>& files);
  // From now on this thread, and no other, may enter.
  absl::Status Enable();

  // Runs the loop that is attached; without one, returns at once. 0 or -errno.
  int Enter() const;

  // The completion at the head of the queue; nullptr if there is none.
  const io_uring_cqe* Head() const;
  void Advance();
  // Whether completions signal `event`, always the same one. Even turned off it
  // costs each completion: it is registered when it is first wanted.
  absl::Status SignalEventFd(int event, bool on);

  int fd() const { return fd_.get(); }
  uint32_t setup_flags() const { return setup_flags_; }

 private:
  LoopRing(UniqueFd fd, const io_uring_params& params, std::byte* rings,
           size_t bytes);
  absl::Status Register(unsigned call, const void* argument, size_t count,
                        const char* what);

  UniqueFd fd_;
  uint32_t setup_flags_;
  std::byte* rings_;
  size_t bytes_;
  uint32_t *head_, *tail_, *flags_;
  uint32_t mask_;
  io_uring_cqe* cqes_;
  bool signals_ = false;  // the eventfd is registered
};

}  // namespace bpfgrant

#endif  // CLIENT_LOOP_RING_H_
