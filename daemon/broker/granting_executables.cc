// Granting, as far as it has to do with what clients execute: read anew for each
// decision that hangs on it, and by nobody else.

#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "daemon/broker/granting.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant::broker {

bool Granting::KnowsEnough(const Session& session) const {
  const policy::ExecutableFacts& known = session.peer.subject.executable;
  return !parts_.mitigations.executable_each_time &&
         (known.path.has_value() || known.sha256.has_value() ||
          known.fsverity.has_value());
}

bool Granting::HasToLook(const Session& session,
                         std::string_view program) const {
  return snapshot_->rules().AskForExecutable(session.peer.subject, program) &&
         !KnowsEnough(session);
}

bool Granting::HasToLook(const Session& session) const {
  return snapshot_->rules().AskForExecutable(session.peer.subject) &&
         !KnowsEnough(session);
}

void Granting::Look(Session& session,
                    absl::AnyInvocable<void(absl::StatusOr<Session*>)> then) {
  if (IsBusy(session)) {
    then(Refuse(v1::REASON_BUSY,
                "this session or user has too many requests under way"));
    return;
  }
  const uid_t uid = session.peer.subject.uid;
  CountWaiting(session.id, uid, 1);
  parts_.executables.Read(
      session.peer.pidfd, uid, snapshot_->rules().executable_kinds(),
      [this, uid, id = session.id,
       then = std::move(then)](policy::ExecutableFacts facts) mutable {
        CountWaiting(id, uid, -1);
        Session* looked_at = parts_.find_session(id);
        if (looked_at == nullptr) {
          then(Refuse(v1::REASON_SESSION_ENDED,
                      "the session ended while it was looked at"));
          return;
        }
        looked_at->peer.subject.executable = std::move(facts);
        then(looked_at);
      });
}

// Of one user after the other, so that who makes it hang holds up nobody else.
struct Granting::Learning {
  absl::AnyInvocable<void()> done;
  size_t users = 0;  // whose sessions are not all known yet
  EventLoop::Source deadline;

  void Finish() {
    deadline = EventLoop::Source();
    if (done) std::exchange(done, nullptr)();
  }
};

void Granting::LearnExecutables(absl::AnyInvocable<void()> done) {
  absl::btree_map<uid_t, absl::btree_set<uint64_t>> sessions;
  parts_.ledger.Select([&](const Grant& grant) {
    const Session* session = parts_.find_session(grant.info.session());
    if (session != nullptr && HasToLook(*session, grant.info.program())) {
      sessions[grant.info.uid()].insert(session->id);
    }
    return false;
  });
  if (sessions.empty()) {
    done();
    return;
  }
  auto learning = std::make_shared<Learning>();
  learning->done = std::move(done);
  learning->users = sessions.size();
  learning->deadline = parts_.loop.Timer(
      kLearnDeadline, [learning] { learning->Finish(); });
  for (const auto& [uid, ids] : sessions) {
    LearnNext(learning, {ids.begin(), ids.end()});
  }
}

void Granting::LearnNext(std::shared_ptr<Learning> learning,
                         std::vector<uint64_t> sessions) {
  Session* next = nullptr;
  while (next == nullptr && !sessions.empty() && learning->done) {
    next = parts_.find_session(sessions.back());
    sessions.pop_back();
  }
  if (next == nullptr) {
    if (--learning->users == 0) learning->Finish();
    return;
  }
  parts_.executables.Read(
      next->peer.pidfd, next->peer.subject.uid,
      snapshot_->rules().executable_kinds(),
      [this, learning, id = next->id, sessions = std::move(sessions)](
          policy::ExecutableFacts facts) mutable {
        if (Session* session = parts_.find_session(id)) {
          session->peer.subject.executable = std::move(facts);
        }
        LearnNext(learning, std::move(sessions));
      });
}

}  // namespace bpfgrant::broker
