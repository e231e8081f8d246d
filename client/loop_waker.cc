#include "client/loop_waker.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/loop_place.h"

namespace bpfgrant {
namespace {

constexpr unsigned kEntries = 16;

// What the private ring's own completions are about.
enum Tag : uint64_t { kPost = 1, kKicked, kTimer, kTimerPost, kTimerRemoved };

absl::Status Failed(const char* what, int error) {
  return absl::InternalError(absl::StrCat(what, ": ", std::strerror(error)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<LoopWaker>> LoopWaker::Make(int target) {
  absl::StatusOr<UniqueFd> kick = MakeEventFd();
  if (!kick.ok()) return kick.status();
  // Plain: several threads use it, and its work has to interrupt a sleep.
  io_uring ring;
  if (const int error = io_uring_queue_init(kEntries, &ring, 0); error < 0) {
    return Failed("io_uring_setup of the ring for wakes", -error);
  }
  return std::unique_ptr<LoopWaker>(
      new LoopWaker(ring, *std::move(kick), target));
}

LoopWaker::~LoopWaker() { io_uring_queue_exit(&ring_); }

io_uring_sqe* LoopWaker::NextSqe() {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  if (sqe != nullptr) return sqe;
  Submit().IgnoreError();
  return io_uring_get_sqe(&ring_);
}

void LoopWaker::PrepareDoorbell(io_uring_sqe* sqe) {
  io_uring_prep_msg_ring(sqe, target_, static_cast<uint32_t>(kDoorbell),
                         BPFGRANT_WAKE, 0);
}

absl::Status LoopWaker::Submit() {
  while (io_uring_sq_ready(&ring_) > 0) {
    const int taken = io_uring_submit(&ring_);
    if (taken >= 0 || taken == -EINTR) continue;
    // Its completions want to be taken first.
    if (taken == -EBUSY && io_uring_cq_ready(&ring_) > 0) {
      if (absl::Status status = Reap(); !status.ok()) return status;
      continue;
    }
    return Failed("submitting a wake", -taken);
  }
  return absl::OkStatus();
}

absl::Status LoopWaker::Reap() {
  absl::Status status;
  io_uring_cqe* cqe;
  while (io_uring_peek_cqe(&ring_, &cqe) == 0) {
    const int result = cqe->res;
    if (cqe->user_data == kKicked && (cqe->flags & IORING_CQE_F_MORE) == 0) {
      kick_armed_ = false;
    }
    if (cqe->user_data == kPost && result < 0) {
      status = result == -EINVAL ? absl::UnimplementedError(
                                       "this kernel has no IORING_OP_MSG_RING")
                                 : Failed("IORING_OP_MSG_RING", -result);
    }
    io_uring_cqe_seen(&ring_, cqe);
  }
  return status;
}

absl::Status LoopWaker::Post(unsigned count) {
  const std::lock_guard lock(mutex_);
  for (unsigned i = 0; i < count; ++i) {
    io_uring_sqe* sqe = NextSqe();
    if (sqe == nullptr) return absl::InternalError("no room for a wake");
    PrepareDoorbell(sqe);
    sqe->user_data = kPost;
  }
  if (absl::Status status = Submit(); !status.ok()) return status;
  // Some kernels have the loop's thread complete it: those are taken later.
  return Reap();
}

absl::Status LoopWaker::PrepareKick() {
  const std::lock_guard lock(mutex_);
  Reap().IgnoreError();
  if (kick_armed_) return absl::OkStatus();
  io_uring_sqe* sqe = NextSqe();
  if (sqe == nullptr) return absl::InternalError("no room for a poll");
  io_uring_prep_poll_multishot(sqe, kick_.get(), POLLIN);
  sqe->user_data = kKicked;
  kick_armed_ = true;
  return Submit();
}

void LoopWaker::Kick() {
  const uint64_t one = 1;
  // It cannot block: the counter would have to overflow.
  [[maybe_unused]] const ssize_t written =
      write(kick_.get(), &one, sizeof(one));
}

absl::Status LoopWaker::SetDeadline(
    std::chrono::steady_clock::time_point deadline) {
  const auto since = deadline.time_since_epoch();
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(since);
  // libstdc++'s steady_clock is CLOCK_MONOTONIC, which is the timeout's, too.
  __kernel_timespec at{
      seconds.count(),
      std::chrono::duration_cast<std::chrono::nanoseconds>(since - seconds)
          .count()};
  const std::lock_guard lock(mutex_);
  // A link must not be cut by a submission in between.
  if (io_uring_sq_space_left(&ring_) < 2) {
    if (absl::Status status = Submit(); !status.ok()) return status;
  }
  io_uring_sqe* timer = NextSqe();
  io_uring_sqe* post = NextSqe();
  if (timer == nullptr || post == nullptr) {
    return absl::InternalError("no room for a deadline");
  }
  io_uring_prep_timeout(timer, &at, 0,
                        IORING_TIMEOUT_ABS | IORING_TIMEOUT_ETIME_SUCCESS);
  timer->flags |= IOSQE_IO_LINK;
  timer->user_data = kTimer;
  PrepareDoorbell(post);
  post->user_data = kTimerPost;
  return Submit();
}

void LoopWaker::ClearDeadline() {
  const std::lock_guard lock(mutex_);
  io_uring_sqe* sqe = NextSqe();
  if (sqe == nullptr) return;
  // What is linked to it is cancelled with it. If it is too late for that, the
  // doorbell is an old one.
  io_uring_prep_timeout_remove(sqe, kTimer, 0);
  sqe->user_data = kTimerRemoved;
  Submit().IgnoreError();
  Reap().IgnoreError();
}

}  // namespace bpfgrant
