// Granting, as far as it has to do with what remains of grants that ended: who
// waits for it to be gone, and what counts until then.

#include <chrono>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/broker/granting.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant::broker {

std::optional<std::string> Granting::RuleToWaitFor(
    const Session& session, const v1::AcquireRequest& request,
    const absl::Status& refusal) const {
  if (ReasonOf(refusal) != v1::REASON_QUOTA || IsBusy(session)) {
    return std::nullopt;
  }
  const uid_t uid = session.peer.subject.uid;
  const v1::Verdict verdict =
      snapshot_->rules().Decide(session.peer.subject, request.program());
  // Where this user's own leftovers count it may be they that are in the way.
  if (parts_.ledger.RetiredOf(verdict.rule(), uid) == 0) return std::nullopt;
  const Program* program = snapshot_->Find(request.program());
  const bool in_the_way =
      parts_.ledger.InUse(verdict.rule(), uid) >= verdict.quota() ||
      (program != nullptr &&
       !CheckAmounts(session, request, {program, verdict, {}, {}}).ok());
  return in_the_way ? std::optional(verdict.rule()) : std::nullopt;
}

void Granting::AwaitRoom(const Session& session, const std::string& rule,
                         const v1::AcquireRequest& request, Company company,
                         Remains::Clock::time_point until) {
  const uid_t uid = session.peer.subject.uid;
  CountWaiting(session.id, uid, 1);
  parts_.remains.AwaitRoom(
      rule, uid, until,
      [this, uid, session_id = session.id, request, until,
       company = std::move(company)](const absl::Status& status) mutable {
        CountWaiting(session_id, uid, -1);
        Session* waiting = parts_.find_session(session_id);
        if (waiting == nullptr) {
          company.answer(Refuse(v1::REASON_SESSION_ENDED,
                                "the session ended while it waited"));
        } else if (ReasonOf(status) == v1::REASON_DAEMON_STOPPED) {
          company.answer(status);
        } else {
          LookAndTry(*waiting, request, std::move(company), until);
        }
      });
}

absl::Status Granting::CheckRelease(const Session& session,
                                    const v1::ReleaseRequest& request) const {
  const bool waits = request.wait_ms() > 0;
  if (request.wait_ms() > kMaxReleaseWait.count()) {
    return Refuse(v1::REASON_INVALID_ARGUMENT,
                  absl::StrCat("no release waits for longer than ",
                               kMaxReleaseWait.count(), " ms"));
  }
  if (waits && !CountsUntilGone()) {
    return Refuse(v1::REASON_KERNEL_TOO_OLD,
                  "the daemon cannot tell here when nothing is left of a "
                  "grant, and does not wait for it");
  }
  const Grant* grant = parts_.ledger.Find(request.grant());
  const v1::GrantInfo* info = grant != nullptr ? &grant->info
                              : waits
                                  ? parts_.ledger.FindRetired(request.grant())
                                  : nullptr;
  if (info == nullptr || info->session() != session.id) {
    return Refuse(v1::REASON_UNKNOWN_GRANT,
                  absl::StrCat("this session has no grant ", request.grant()));
  }
  return absl::OkStatus();
}

void Granting::Release(
    Session& session, const v1::ReleaseRequest& request,
    absl::AnyInvocable<void(absl::StatusOr<v1::ReleaseReply>)> answer) {
  const uint64_t id = request.grant();
  const std::chrono::milliseconds patience(request.wait_ms());
  const bool waits = patience.count() > 0;
  if (absl::Status status = CheckRelease(session, request); !status.ok()) {
    // That it is unknown by now is what was asked for.
    if (session.resent && ReasonOf(status) == v1::REASON_UNKNOWN_GRANT) {
      answer(v1::ReleaseReply());
    } else {
      answer(status);
    }
    return;
  }
  End(id, v1::REASON_RELEASED);
  // One that was not loaded yet left nothing.
  if (!waits || parts_.ledger.FindRetired(id) == nullptr) {
    answer(v1::ReleaseReply());
    return;
  }
  parts_.remains.Await(
      id, patience,
      [answer = std::move(answer)](const absl::Status& status) mutable {
        if (status.ok()) {
          answer(v1::ReleaseReply());
        } else {
          answer(status);
        }
      });
}

void Granting::GiveUpSharedMaps(Session& session, v1::Reason why) {
  for (auto& [identity, shared] : session.shared) {
    if (shared.maps.empty()) continue;
    shared.maps.clear();
    parts_.keeping.ForgetSharedMaps(shared.gate);
    shared.holder.set_ended(why);
    const uint64_t charge =
        CountsUntilGone()
            ? parts_.ledger.AddRetired(std::move(shared.holder), shared.gate)
            : 0;
    parts_.ledger.Forget(shared.record);
    parts_.remains.Add(shared.gate, /*session_maps=*/true, charge);
  }
}

}  // namespace bpfgrant::broker
