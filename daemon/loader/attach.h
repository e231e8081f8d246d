// Attaching programs to clients' sockets and devices. Each attachment runs in a
// child process of its own with a deadline: the locks that it takes are
// clients' to hold, and the loader must never wait for a client.
//
// It must not decide who may have an attachment.

#ifndef DAEMON_LOADER_ATTACH_H_
#define DAEMON_LOADER_ATTACH_H_

#include <poll.h>
#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "bpfgrant/v1/messages.pb.h"
#include "daemon/mitigations.h"
#include "proto/wire/limits.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::daemon {

class Attacher {
 public:
  using Clock = std::chrono::steady_clock;

  // Children at once, those included that were killed and are not gone yet.
  static constexpr size_t kMaxChildren = 64;
  // Of one owner: whoever makes attachments hang must not take all places.
  static constexpr size_t kMaxChildrenOfOwner = 4;

  explicit Attacher(const Mitigations& mitigations,
                    std::chrono::milliseconds deadline = kAttachDeadline)
      : mitigations_(mitigations), deadline_(deadline) {}
  // Kills the children and does not wait for them.
  ~Attacher();
  Attacher(const Attacher&) = delete;
  Attacher& operator=(const Attacher&) = delete;

  struct Result {
    uint64_t id = 0;
    // OK, REASON_SOCKET_UNSUITABLE, REASON_TUN_UNSUITABLE or
    // REASON_ATTACH_FAILED.
    absl::Status status;
  };

  // Begins to attach `program` to `fd` of `owner`, which ought to be a
  // `target`. Collect answers for `id`, at the latest when the deadline that
  // begins now is past. Must not be called while the process has threads.
  void Start(uint64_t id, uint32_t owner, UniqueFd program, UniqueFd fd,
             v1::Target target);

  // Adds what poll(2) has to watch for Collect to have something to do.
  void AddTo(std::vector<pollfd>& polled) const;
  // When Collect is to be called even if nothing happened.
  std::optional<Clock::time_point> NextDeadline() const;

  // What is decided by now; never waits. Children past the deadline are killed
  // and answered for at once, gone or not.
  std::vector<Result> Collect();

  // Attachments that Collect has not answered for.
  size_t pending() const;

 private:
  struct Waiting {
    uint64_t id;
    uint32_t owner;
    UniqueFd program;
    UniqueFd fd;
    v1::Target target;
    Clock::time_point deadline;
  };
  struct Child {
    uint64_t id;
    uint32_t owner;
    v1::Target target;
    pid_t pid;
    UniqueFd outcome;  // a pipe on which the child says how it went
    Clock::time_point deadline;
    bool answered = false;  // and killed; only to be reaped
  };

  absl::Status Fork(Waiting& waiting);
  bool HasPlaceFor(uint32_t owner) const;
  void StartWaiting(std::vector<Result>& results);
  void CollectChild(Child& child, Clock::time_point now,
                    std::vector<Result>& results);

  Mitigations mitigations_;
  std::chrono::milliseconds deadline_;
  std::deque<Waiting> waiting_;
  std::vector<Child> children_;
};

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_ATTACH_H_
