// Brings a thread back that sleeps inside a loop: a ring of the library's own,
// whose requests post completions into the loop's ring (IORING_OP_MSG_RING).
// That ring's own restrictions do not matter to it.

#ifndef CLIENT_LOOP_WAKER_H_
#define CLIENT_LOOP_WAKER_H_

#include <liburing.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant {

class LoopWaker {
 public:
  // For the ring `target`, which has to be open as long as this lives.
  static absl::StatusOr<std::unique_ptr<LoopWaker>> Make(int target);
  LoopWaker(const LoopWaker&) = delete;
  LoopWaker& operator=(const LoopWaker&) = delete;
  ~LoopWaker();

  // Posts `count` doorbells. Any thread. kUnimplemented: this kernel has no
  // IORING_OP_MSG_RING (it came with Linux 5.18).
  absl::Status Post(unsigned count);

  // The rest is for the loop's place in the kernel, where nothing but a
  // completion, a signal or work of its own for this task ends the sleep. These
  // requests are the calling thread's, the loop's: when one of them completes,
  // the kernel has that thread come round to do so.

  // Has Kick work; again before each run.
  absl::Status PrepareKick();
  // Has the sleeping thread call the loop's step, whatever it waits for. Any
  // thread.
  void Kick();

  // Posts a doorbell at `deadline`, unless that is cleared before. One at a
  // time.
  absl::Status SetDeadline(std::chrono::steady_clock::time_point deadline);
  void ClearDeadline();

 private:
  LoopWaker(io_uring ring, UniqueFd kick, int target)
      : ring_(ring), kick_(std::move(kick)), target_(target) {}

  // These want the mutex.
  io_uring_sqe* NextSqe();
  void PrepareDoorbell(io_uring_sqe* sqe);
  absl::Status Submit();
  // Takes what completed. What failed of a Post.
  absl::Status Reap();

  std::mutex mutex_;
  io_uring ring_;
  UniqueFd kick_;
  const int target_;
  bool kick_armed_ = false;
};

}  // namespace bpfgrant

#endif  // CLIENT_LOOP_WAKER_H_
