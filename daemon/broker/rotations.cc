#include "daemon/broker/rotations.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant::broker {
namespace {

constexpr std::chrono::milliseconds kFirstLook{1};
constexpr std::chrono::milliseconds kLongestLook{64};

absl::Status StillRead(const std::vector<std::string>& maps) {
  return Refuse(v1::REASON_STILL_READ,
                absl::StrCat("a run of the program may still have the old ",
                             absl::StrJoin(maps, ", ")));
}

std::chrono::milliseconds DeadlineOf(const v1::RotateRequest& request) {
  return request.deadline_ms() == 0
             ? kRotateDeadline
             : std::chrono::milliseconds(request.deadline_ms());
}

}  // namespace

void Rotations::Rotate(const Session& session, const v1::RotateRequest& request,
                       Answer answer) {
  if (absl::Status status = Check(session, request); !status.ok()) {
    answer(status);
    return;
  }
  const uint64_t id = request.grant();
  if (request.map().empty()) {
    Await(id, request, std::move(answer));
    return;
  }
  v1::RotateReply reply = TurnOver(session, *parts_.ledger.Find(id), request);
  if (!parts_.mitigations.rotate_waits) {
    answer(std::move(reply));
    return;
  }
  Turn& turn = turns_[id];
  turn.reply = std::move(reply);
  turn.maps.assign(request.map().begin(), request.map().end());
  turn.answer = std::move(answer);
  turn.deadline =
      parts_.loop.Timer(DeadlineOf(request), [this, id] { TimeIsUp(id); });
  const Instance& instance = parts_.ledger.Find(id)->instance;
  WaitForRuns(id, instance.gate, instance.kept == KeptByLoader::kLoop);
}

// A run that began before the store can have an old map, one that began after
// it cannot.
void Rotations::WaitForRuns(uint64_t grant, const Gates::Gate& gate,
                            bool loop) {
  if (loop && parts_.mitigations.rotate_counts_steps) {
    LookAtSteps(grant, gate, parts_.steps->Begun(gate), kFirstLook);
    return;
  }
  parts_.grace_period.Wait([this, grant] { Ended(grant); });
}

// Nobody tells when a step ends, which takes microseconds as a rule; one that
// sleeps may take for ever.
void Rotations::LookAtSteps(uint64_t grant, Gates::Gate gate, uint32_t begun,
                            std::chrono::milliseconds pause) {
  if (parts_.steps->HaveEnded(gate, begun) ||
      parts_.ledger.Find(grant) == nullptr) {
    Ended(grant);
    return;
  }
  turns_.at(grant).look =
      parts_.loop.Timer(pause, [this, grant, gate, begun, pause] {
        LookAtSteps(grant, gate, begun, std::min(2 * pause, kLongestLook));
      });
}

absl::Status Rotations::Check(const Session& session,
                              const v1::RotateRequest& request) const {
  const Grant* grant = parts_.ledger.Find(request.grant());
  if (grant == nullptr || grant->info.session() != session.id ||
      !grant->info.claimed()) {
    return Refuse(v1::REASON_UNKNOWN_GRANT,
                  absl::StrCat("this session has no grant ", request.grant()));
  }
  if (DeadlineOf(request) > kMaxRotateDeadline) {
    return Refuse(v1::REASON_INVALID_ARGUMENT,
                  absl::StrCat("a deadline is at most ",
                               kMaxRotateDeadline.count(), " ms"));
  }
  for (auto map = request.map().begin(); map != request.map().end(); ++map) {
    const auto& known = grant->swappable;
    if (std::find(known.begin(), known.end(), *map) == known.end() ||
        std::find(request.map().begin(), map, *map) != map) {
      return Refuse(v1::REASON_UNKNOWN_HANDLE,
                    "a name is no swappable map's of that grant, or was given "
                    "twice");
    }
  }
  if (request.map().empty()) return absl::OkStatus();
  // What a second turn would bring back may still be read.
  if (turns_.contains(request.grant())) {
    return Refuse(v1::REASON_BUSY, "its last turn has not come to its end");
  }
  if (grant->instance.kept == KeptByLoader::kLoop && parts_.steps == nullptr) {
    return absl::InternalError("the steps of loops are not told");
  }
  return absl::OkStatus();
}

v1::RotateReply Rotations::TurnOver(const Session& session, Grant& grant,
                                    const v1::RotateRequest& request) {
  const auto bit_of = [&grant](const std::string& map) {
    const auto& known = grant.swappable;
    return uint64_t{1} << (std::find(known.begin(), known.end(), map) -
                           known.begin());
  };
  uint64_t bits = 0;
  for (const std::string& map : request.map()) bits |= bit_of(map);
  const bool done = session.request != 0 && session.resent &&
                    grant.rotated_by == session.request;
  if (!done) {
    // First on record, and done by whoever reads that, if not here.
    grant.rotated_by = session.request;
    grant.swaps = parts_.gates.Swaps(grant.instance.gate) ^ bits;
    if (grant.record.has_value()) parts_.ledger.Commit(grant);
    parts_.gates.Swap(grant.instance.gate, bits);
  }
  const uint64_t now = parts_.gates.Swaps(grant.instance.gate);
  v1::RotateReply reply;
  for (const std::string& map : request.map()) {
    reply.add_current(
        absl::StrCat(map, (now & bit_of(map)) != 0 ? ".1" : ".0"));
  }
  return reply;
}

void Rotations::Await(uint64_t grant, const v1::RotateRequest& request,
                      Answer answer) {
  const auto found = turns_.find(grant);
  if (found == turns_.end()) {
    answer(v1::RotateReply());
    return;
  }
  Turn& turn = found->second;
  if (turn.answer) {
    answer(Refuse(v1::REASON_BUSY, "another call waits for it"));
    return;
  }
  turn.answer = std::move(answer);
  turn.deadline = parts_.loop.Timer(DeadlineOf(request),
                                    [this, grant] { TimeIsUp(grant); });
}

void Rotations::TimeIsUp(uint64_t grant) {
  Turn& turn = turns_.at(grant);
  turn.deadline = EventLoop::Source();
  Answer answer = std::exchange(turn.answer, nullptr);
  if (answer) answer(StillRead(turn.maps));
}

void Rotations::Ended(uint64_t grant) {
  const auto found = turns_.find(grant);
  if (found == turns_.end()) return;
  Turn turn = std::move(found->second);
  turns_.erase(found);
  if (!turn.answer) return;
  if (parts_.ledger.Find(grant) == nullptr) {
    turn.answer(Refuse(v1::REASON_SESSION_ENDED,
                       "the grant ended while its maps were turned over"));
    return;
  }
  turn.answer(std::move(turn.reply));
}

void Rotations::Stop() {
  while (!turns_.empty()) {
    Turn turn = std::move(turns_.begin()->second);
    turns_.erase(turns_.begin());
    if (turn.answer) {
      turn.answer(Refuse(v1::REASON_DAEMON_STOPPED,
                         "the daemon stops while maps are turned over"));
    }
  }
}

}  // namespace bpfgrant::broker
