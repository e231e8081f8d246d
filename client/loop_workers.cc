#include "client/loop_workers.h"

#include <liburing.h>
#include <sys/eventfd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "client/loop_place.h"

namespace bpfgrant {

absl::Status StartWorkers() {
  io_uring ring;
  int error = io_uring_queue_init(2, &ring, 0);
  if (error < 0) {
    return absl::InternalError(
        absl::StrCat("io_uring_setup for workers: ", std::strerror(-error)));
  }
  const absl::Cleanup exit = [&ring] { io_uring_queue_exit(&ring); };
  absl::StatusOr<UniqueFd> event = MakeEventFd();
  if (!event.ok()) return event.status();
  // A request for a worker of each kind; neither has anything to wait for.
  uint64_t count = 1;
  if (eventfd_write(event->get(), count) < 0) {
    return absl::InternalError(
        absl::StrCat("eventfd_write: ", std::strerror(errno)));
  }
  io_uring_sqe* sqe = io_uring_get_sqe(&ring);
  io_uring_prep_nop(sqe);
  sqe->flags |= IOSQE_ASYNC;
  sqe = io_uring_get_sqe(&ring);
  io_uring_prep_read(sqe, event->get(), &count, sizeof(count), 0);
  sqe->flags |= IOSQE_ASYNC;
  unsigned left = 2;
  error = io_uring_submit(&ring);
  while (error >= 0 && left > 0) {
    io_uring_cqe* cqe;
    error = io_uring_wait_cqe(&ring, &cqe);
    if (error == 0) {
      io_uring_cqe_seen(&ring, cqe);
      --left;
    } else if (error == -EINTR) {
      error = 0;
    }
  }
  if (error >= 0) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("starting workers: ", std::strerror(-error)));
}

}  // namespace bpfgrant
