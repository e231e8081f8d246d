// Attaching programs to clients' sockets and devices, in children: the locks
// that it takes are clients' to hold.
//
// It must not decide who may have an attachment.

#ifndef DAEMON_LOADER_ATTACH_H_
#define DAEMON_LOADER_ATTACH_H_

#include <poll.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "bpfgrant/v1/messages.pb.h"
#include "daemon/loader/children.h"
#include "daemon/mitigations.h"
#include "proto/wire/limits.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::daemon {

class Attacher {
 public:
  explicit Attacher(const Mitigations& mitigations,
                    std::chrono::milliseconds deadline = kAttachDeadline)
      : mitigations_(mitigations), deadline_(deadline) {}

  struct Result {
    uint64_t id = 0;
    // OK, REASON_SOCKET_UNSUITABLE, REASON_TUN_UNSUITABLE or
    // REASON_ATTACH_FAILED.
    absl::Status status;
  };

  // Begins to attach `program` to `fd` of `owner`, which ought to be a
  // `target`. Collect answers for `id`, at the latest when the deadline that
  // begins now is past.
  void Start(uint64_t id, uint32_t owner, UniqueFd program, UniqueFd fd,
             v1::Target target);

  // As in Children.
  void AddTo(std::vector<pollfd>& polled) const { children_.AddTo(polled); }
  std::optional<Children::Clock::time_point> NextDeadline() const {
    return children_.NextDeadline();
  }
  std::vector<Result> Collect();
  size_t pending() const { return children_.pending(); }

 private:
  const Mitigations mitigations_;
  const std::chrono::milliseconds deadline_;
  Children children_;
};

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_ATTACH_H_
