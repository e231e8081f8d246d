// The loops that were loaded: their structures until they are attached, their
// links from then on, and the children that make and remove those.
//
// It must not decide who may have a loop.

#ifndef DAEMON_LOADER_LOOPS_H_
#define DAEMON_LOADER_LOOPS_H_

#include <poll.h>
#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "daemon/fd_store.h"
#include "daemon/loader/admission.h"
#include "daemon/loader/children.h"
#include "daemon/loader/loop_child.h"
#include "daemon/mitigations.h"
#include "proto/wire/limits.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::daemon {

class Loops {
 public:
  using Clock = std::chrono::steady_clock;

  // Of these, as many as there may be of others.
  static constexpr size_t kMaxChildren = Children::kMaxChildren;
  static constexpr size_t kMaxChildrenOfOwner = Children::kMaxChildrenOfOwner;

  // Links go into `store` as well.
  Loops(const Mitigations& mitigations, FdStore& store)
      : mitigations_(mitigations), store_(store) {}
  // Kills the children and does not wait for them. Links that are left end with
  // the process.
  ~Loops();
  Loops(const Loops&) = delete;
  Loops& operator=(const Loops&) = delete;

  struct Result {
    uint64_t id = 0;
    absl::Status status;  // a reason of REASON_RING_*, for instance
  };

  // Slot and nonce: what a loop is known by. A slot comes back, the pair does
  // not.
  using Gate = std::pair<uint32_t, uint64_t>;

  // Takes over a loop that was loaded behind `gate`.
  void Keep(Gate gate, UniqueFd structure,
            std::shared_ptr<const Program> program);

  // Takes up one that an earlier loader had attached to a ring of the process
  // behind `pidfd`, which may be invalid: then nobody is killed for it.
  void Restore(Gate gate, UniqueFd link, UniqueFd pidfd);

  // Begins to attach it to the ring that the process of `pidfd` has under the
  // number `ring`. Collect answers for `id`.
  void Attach(uint64_t id, Gate gate, UniqueFd pidfd, int ring, uint32_t owner);

  // Its gate is closed, and nobody wants it any more: it is taken off its ring
  // and let go. Whoever holds that up is killed.
  void Detach(Gate gate);

  // Of all there are.
  std::vector<Gate> Gates() const;

  void AddTo(std::vector<pollfd>& polled) const;
  std::optional<Clock::time_point> NextDeadline() const;
  // What is decided by now; never waits.
  std::vector<Result> Collect();

  size_t size() const { return loops_.size(); }

 private:
  struct Loop {
    std::shared_ptr<const Program> program;
    UniqueFd structure;  // until it is attached
    UniqueFd link;       // from then on
    UniqueFd pidfd;      // of the process whose ring it is on
    uint32_t owner = 0;  // as the broker says, for its share
    // As the kernel says: whose processes may have the ring. None: nobody's,
    // or root's, which are not killed.
    std::optional<uint32_t> user;
    bool used = false;      // a loop is for one ring
    bool unwanted = false;  // Detach came while it was being attached
  };
  struct Waiting {
    uint64_t id;
    Gate gate;
    int ring;
    Clock::time_point deadline;
  };
  enum class Phase { kPreparing, kReady, kLinking, kFinished };
  struct Child {
    pid_t pid;
    UniqueFd socket;
    std::optional<uint64_t> id;  // whom to answer; none: a detachment
    Gate gate;
    uint32_t owner;
    std::optional<uint32_t> user;
    UniqueFd link;   // of a detachment
    UniqueFd pidfd;  // whom to kill
    Phase phase;
    Clock::time_point deadline;
    int kills = 0;
  };

  bool HasPlaceFor(uint32_t owner) const;
  bool LinkingIsFree() const;
  absl::Status Fork(const Waiting& waiting);
  void StartDetaching();
  void GiveTurns();
  void Listen(Child& child, std::vector<Result>& results);
  void Store(Gate gate, const Loop& loop);
  void Finish(Child& child, const LoopWord& word, UniqueFd link,
              std::vector<Result>& results);
  void HurryUp(Child& child, Clock::time_point now,
               std::vector<Result>& results);
  void StartWaiting(std::vector<Result>& results);

  Mitigations mitigations_;
  FdStore& store_;
  std::map<Gate, Loop> loops_;
  std::deque<Waiting> waiting_;
  std::deque<Loop> detaching_;
  std::vector<std::unique_ptr<Child>> children_;
  std::vector<pid_t> sweepers_;
};

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_LOOPS_H_
