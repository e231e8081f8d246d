// Swappable maps turned over: first the daemon's store, by which runs that
// begin from then on see the other ones, then a grace period, by which no run
// has an old one any more. Of a loop, whose steps can sleep, the end of the
// step that is under way instead.

#ifndef DAEMON_BROKER_ROTATIONS_H_
#define DAEMON_BROKER_ROTATIONS_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "bpfgrant/v1/messages.pb.h"
#include "daemon/broker/event_loop.h"
#include "daemon/broker/gates.h"
#include "daemon/broker/grace_period.h"
#include "daemon/broker/ledger.h"
#include "daemon/broker/session.h"
#include "daemon/broker/steps.h"
#include "daemon/mitigations.h"

namespace bpfgrant::broker {

class Rotations {
 public:
  // Called exactly once, at once or later, on the loop's thread.
  using Answer = absl::AnyInvocable<void(absl::StatusOr<v1::RotateReply>)>;

  struct Parts {
    EventLoop& loop;
    Gates& gates;
    Ledger& ledger;
    GracePeriod& grace_period;
    const daemon::Mitigations& mitigations;
    const Steps* steps = nullptr;  // null: this kernel has no loops
  };

  explicit Rotations(Parts parts) : parts_(std::move(parts)) {}

  // REASON_UNKNOWN_GRANT; REASON_UNKNOWN_HANDLE: it has no such swappable map;
  // REASON_BUSY: the last turn of that grant has not come to its end;
  // REASON_STILL_READ: the deadline passed; REASON_SESSION_ENDED: the grant
  // ended meanwhile; kInternal.
  void Rotate(const Session& session, const v1::RotateRequest& request,
              Answer answer);
  // Answers everybody who waits with REASON_DAEMON_STOPPED.
  void Stop();

 private:
  // A turn whose grace period has not ended. By grant.
  struct Turn {
    v1::RotateReply reply;
    std::vector<std::string> maps;
    Answer answer;  // null: whoever waited was told that time was up
    EventLoop::Source deadline;
    EventLoop::Source look;  // of a loop: the next time
  };

  absl::Status Check(const Session& session,
                     const v1::RotateRequest& request) const;
  // Once for each frame, also when it comes a second time.
  v1::RotateReply TurnOver(const Session& session, Grant& grant,
                           const v1::RotateRequest& request);
  // Calls Ended once nothing that began before now is under way.
  void WaitForRuns(uint64_t grant, const Gates::Gate& gate, bool loop);
  void LookAtSteps(uint64_t grant, Gates::Gate gate, uint32_t begun,
                   std::chrono::milliseconds pause);
  void Await(uint64_t grant, const v1::RotateRequest& request, Answer answer);
  void TimeIsUp(uint64_t grant);
  void Ended(uint64_t grant);

  Parts parts_;
  absl::btree_map<uint64_t, Turn> turns_;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_ROTATIONS_H_
