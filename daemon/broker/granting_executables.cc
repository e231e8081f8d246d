// Granting, as far as it has to do with what clients execute: read anew for
// each decision that hangs on it, and by nobody else.

#include <algorithm>
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
      session.peer.pidfd, uid,
      snapshot_->rules().KindsOfExecutable(session.peer.subject),
      [this, uid, id = session.id, then = std::move(then)](
          absl::StatusOr<policy::ExecutableFacts> facts) mutable {
        CountWaiting(id, uid, -1);
        Session* looked_at = parts_.find_session(id);
        if (looked_at == nullptr) {
          then(Refuse(v1::REASON_SESSION_ENDED,
                      "the session ended while it was looked at"));
        } else if (!facts.ok()) {
          then(facts.status());
        } else {
          looked_at->peer.subject.executable = *std::move(facts);
          then(looked_at);
        }
      });
}

// Of so many users at once, and of one process of each after the other: who
// makes it hang holds up few others.
struct Granting::Learning {
  absl::AnyInvocable<void()> done;
  std::vector<Processes> users;  // that are not begun yet
  size_t under_way = 0;
  EventLoop::Source deadline;

  void Finish() {
    deadline = EventLoop::Source();
    if (done) std::exchange(done, nullptr)();
  }
};

std::vector<Granting::Processes> Granting::ForgetExecutables() {
  absl::btree_map<uid_t, absl::btree_map<pid_t, absl::btree_set<uint64_t>>>
      users;
  parts_.ledger.Select([&](const Grant& grant) {
    Session* session = parts_.find_session(grant.info.session());
    if (session == nullptr || !HasToLook(*session, grant.info.program())) {
      return false;
    }
    session->peer.subject.executable = {};
    session->peer.subject.executable.unknown = "it was not read in time";
    users[grant.info.uid()][session->peer.pid].insert(session->id);
    return false;
  });
  std::vector<Processes> list;
  for (const auto& [uid, processes] : users) {
    Processes& of_user = list.emplace_back();
    for (const auto& [pid, sessions] : processes) {
      of_user.emplace_back(sessions.begin(), sessions.end());
    }
  }
  return list;
}

void Granting::LearnExecutables(absl::AnyInvocable<void()> done) {
  std::vector<Processes> users = ForgetExecutables();
  if (users.empty()) {
    done();
    return;
  }
  auto learning = std::make_shared<Learning>();
  learning->done = std::move(done);
  learning->users = std::move(users);
  learning->deadline =
      parts_.loop.Timer(kLearnDeadline, [learning] { learning->Finish(); });
  learning->under_way = std::min(kLearnUsers, learning->users.size());
  for (size_t i = learning->under_way; i > 0; --i) LearnNext(learning, {});
}

void Granting::LearnNext(const std::shared_ptr<Learning>& learning,
                         Processes processes) {
  if (processes.empty() && !learning->users.empty()) {
    processes = std::move(learning->users.back());
    learning->users.pop_back();
  }
  if (processes.empty() || !learning->done) {
    if (--learning->under_way == 0) learning->Finish();
    return;
  }
  const std::vector<uint64_t> sessions = std::move(processes.back());
  processes.pop_back();
  // Not from within: what is answered at once would nest without end.
  auto next = [this, learning, processes = std::move(processes)]() mutable {
    parts_.loop.Post(
        [this, learning, processes = std::move(processes)]() mutable {
          LearnNext(learning, std::move(processes));
        });
  };
  const auto living = std::find_if(
      sessions.begin(), sessions.end(),
      [this](uint64_t id) { return parts_.find_session(id) != nullptr; });
  if (living == sessions.end()) {
    next();
    return;
  }
  const Peer& peer = parts_.find_session(*living)->peer;
  parts_.executables.Read(
      peer.pidfd, peer.subject.uid,
      snapshot_->rules().KindsOfExecutable(peer.subject),
      [this, sessions, next = std::move(next)](
          const absl::StatusOr<policy::ExecutableFacts>& facts) mutable {
        for (const uint64_t id : sessions) {
          Session* session = parts_.find_session(id);
          if (session == nullptr || !facts.ok()) continue;
          session->peer.subject.executable = *facts;
        }
        next();
      });
}

}  // namespace bpfgrant::broker
