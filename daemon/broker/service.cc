#include "daemon/broker/service.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "policy/policy.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"
#include "spdlog/spdlog.h"

namespace bpfgrant::broker {
namespace {

// Of a reload's complaints: its reply has to fit one frame.
constexpr int kMaxUnavailableTold = 64;
constexpr size_t kMaxUnavailableBytes = 512;  // of each

absl::StatusOr<std::function<bool(const Grant&)>> Matcher(
    const v1::RevokeRequest& request) {
  using Match = std::function<bool(const Grant&)>;
  switch (request.what_case()) {
    case v1::RevokeRequest::kGrant:
      return Match([id = request.grant()](const Grant& grant) {
        return grant.info.grant() == id;
      });
    case v1::RevokeRequest::kProgram:
      return Match([&request](const Grant& grant) {
        return grant.info.program() == request.program();
      });
    case v1::RevokeRequest::kDigest:
      return Match([&request](const Grant& grant) {
        return grant.info.digest() == request.digest();
      });
    case v1::RevokeRequest::kUid:
      return Match([&request](const Grant& grant) {
        return grant.info.uid() == request.uid();
      });
    case v1::RevokeRequest::kUnit:
      // Those outside any unit are not "the unit with no name".
      if (request.unit().empty()) break;
      return Match([&request](const Grant& grant) {
        return grant.info.unit() == request.unit();
      });
    case v1::RevokeRequest::kAll:
      if (!request.all()) break;
      return Match([](const Grant&) { return true; });
    case v1::RevokeRequest::WHAT_NOT_SET:
      break;
  }
  return Refuse(v1::REASON_INVALID_ARGUMENT, "nothing was named to revoke");
}

}  // namespace

v1::ReloadReply Summarize(const Snapshot& snapshot) {
  v1::ReloadReply reply;
  uint32_t available = 0;
  int unavailable = 0;
  for (const auto& [name, program] : snapshot.programs()) {
    if (program.available()) {
      ++available;
    } else if (++unavailable <= kMaxUnavailableTold) {
      reply.add_unavailable(absl::StrCat(
          name, ": ",
          program.description().refusal().substr(0, kMaxUnavailableBytes)));
    }
  }
  if (unavailable > kMaxUnavailableTold) {
    reply.add_unavailable(absl::StrCat("and ",
                                       unavailable - kMaxUnavailableTold,
                                       " more: bpfgrantctl list shows them"));
  }
  reply.set_programs(available);
  reply.set_rules(static_cast<uint32_t>(snapshot.rules().size()));
  return reply;
}

void WarnOf(const v1::ReloadReply& summary, const policy::Rules& rules,
            const std::string& no_executables) {
  for (const std::string& line : summary.unavailable()) {
    spdlog::warn("unavailable: {}", line);
  }
  if (no_executables.empty()) return;
  for (const policy::Rule& rule : rules.rules()) {
    const daemon::CompiledRule& source = rule.source();
    if (source.executable().empty()) continue;
    spdlog::warn(
        "rule '{}' ({}:{}) names an executable, which is not known of any "
        "process ({}): it {}",
        source.name(), source.file(), source.line(), no_executables,
        source.deny() ? "denies whomever else it names" : "allows nobody");
  }
}

absl::Status Service::CheckAdministrator(const Session& session) {
  if (session.administrator) return absl::OkStatus();
  return Refuse(v1::REASON_NOT_ADMINISTRATOR,
                absl::StrCat("uid ", session.peer.subject.uid,
                             " is not an administrator of this daemon"));
}

void Service::CountRefusal(v1::Reason reason) {
  if (v1::Reason_IsValid(reason)) ++refused_[reason];
}

void Service::Acquire(Session& session, const v1::AcquireRequest& request,
                      std::vector<UniqueFd> fds, bool claim_later,
                      Answer<Delivered> answer) {
  parts_.granting.Acquire(session, request, std::move(fds), claim_later,
                          std::move(answer));
}

void Service::Claim(Session& session, const v1::ClaimRequest& request,
                    std::vector<UniqueFd> fds, Answer<Delivered> answer) {
  parts_.granting.Claim(session, request, std::move(fds), std::move(answer));
}

void Service::Release(Session& session, const v1::ReleaseRequest& request,
                      Answer<v1::ReleaseReply> answer) {
  parts_.granting.Release(session, request, std::move(answer));
}

void Service::Rotate(Session& session, const v1::RotateRequest& request,
                     Answer<v1::RotateReply> answer) {
  parts_.rotations.Rotate(session, request, std::move(answer));
}

void Service::Revoke(Session& session, const v1::RevokeRequest& request,
                     Answer<v1::RevokeReply> answer) {
  if (absl::Status status = CheckAdministrator(session); !status.ok()) {
    answer(status);
    return;
  }
  const auto matcher = Matcher(request);
  if (!matcher.ok()) {
    answer(matcher.status());
    return;
  }
  const std::vector<uint64_t> ids = parts_.ledger.Select(*matcher);
  if (request.what_case() == v1::RevokeRequest::kGrant && ids.empty()) {
    answer(Refuse(v1::REASON_UNKNOWN_GRANT,
                  absl::StrCat("no grant ", request.grant())));
    return;
  }
  parts_.audit.GrantsRevoked(session, request.ShortDebugString(), ids.size());
  for (const uint64_t id : ids) parts_.granting.End(id, v1::REASON_REVOKED);

  v1::RevokeReply reply;
  reply.set_revoked(static_cast<uint32_t>(ids.size()));
  if (ids.empty()) {
    answer(std::move(reply));
    return;
  }
  // Whichever comes first answers: the grace period or the deadline.
  const uint64_t id = next_revocation_++;
  Revocation& revocation = revoking_[id];
  revocation.answer = std::move(answer);
  revocation.reply = std::move(reply);
  revocation.deadline = parts_.loop.Timer(
      kRevokeDeadline, [this, id] { FinishRevocation(id, true); });
  parts_.grace_period.Wait([this, id] { FinishRevocation(id, false); });
}

absl::StatusOr<uint64_t> Service::Trace(const Session& session,
                                        const v1::TraceRequest& request,
                                        Tracer::Sink sink) {
  if (absl::Status status = CheckAdministrator(session); !status.ok()) {
    return status;
  }
  const Grant* grant = parts_.ledger.Find(request.grant());
  if (grant == nullptr || !grant->loaded) {
    return Refuse(v1::REASON_UNKNOWN_GRANT,
                  absl::StrCat("no grant ", request.grant()));
  }
  const std::string& name = grant->info.program();
  const Program* program = parts_.granting.snapshot().Find(name);
  if (parts_.tracer == nullptr || program == nullptr ||
      !program->description().detail().loop().traceable()) {
    return Refuse(v1::REASON_INVALID_ARGUMENT,
                  absl::StrCat("'", name,
                               "' is no io_uring loop that can be traced: its "
                               "manifest does not say `trace`"));
  }
  spdlog::info("uid {} traces grant {} of '{}'", session.peer.subject.uid,
               request.grant(), name);
  return parts_.tracer->Add(request.grant(), grant->instance.gate,
                            std::move(sink));
}

void Service::EndTrace(uint64_t reader) {
  if (parts_.tracer != nullptr) parts_.tracer->Remove(reader);
}

void Service::FinishRevocation(uint64_t id, bool running) {
  const auto found = revoking_.find(id);
  if (found == revoking_.end()) return;
  Revocation revocation = std::move(found->second);
  revoking_.erase(found);
  revocation.reply.set_running(running);
  revocation.answer(std::move(revocation.reply));
}

void Service::Stop() {
  while (!revoking_.empty()) FinishRevocation(revoking_.begin()->first, true);
  parts_.rotations.Stop();
}

void Service::Reload(Session& session, const v1::ReloadRequest& request,
                     Answer<v1::ReloadReply> answer) {
  if (absl::Status status = CheckAdministrator(session); !status.ok()) {
    answer(status);
    return;
  }
  spdlog::info("uid {} asks for a reload{}", session.peer.subject.uid,
               request.enforce() ? " and enforces the policy" : "");
  enforce_next_ |= request.enforce();
  Reload(std::move(answer));
}

void Service::Reload(Answer<v1::ReloadReply> answer) {
  reload_next_.push_back(std::move(answer));
  if (reloading_.empty()) StartReload();
}

void Service::StartReload() {
  reloading_ = std::exchange(reload_next_, {});
  enforcing_ = std::exchange(enforce_next_, false);
  reload_began_ = std::chrono::steady_clock::now();
  parts_.on_reload(true);
  daemon::LoaderRequest request;
  request.mutable_reload();
  parts_.loader.Send(std::move(request), {}, kReloadDeadline,
                     [this](absl::StatusOr<LoaderClient::Reply> reply) {
                       ReadSnapshot(std::move(reply));
                     });
}

void Service::ReadSnapshot(absl::StatusOr<LoaderClient::Reply> reply) {
  if (!reply.ok()) return FinishReload(reply.status());
  if (reply->fds.size() != 1) {
    return FinishReload(absl::InternalError("the loader sent no snapshot"));
  }
  snapshot_reader_ =
      std::jthread([this, memfd = std::move(reply->fds.front())] {
        parts_.loop.Post([this, snapshot = Snapshot::Read(memfd)]() mutable {
          TakeSnapshot(std::move(snapshot));
        });
      });
}

void Service::TakeSnapshot(
    absl::StatusOr<std::shared_ptr<const Snapshot>> snapshot) {
  if (!snapshot.ok()) return FinishReload(snapshot.status());
  const uint32_t ended = parts_.granting.SetSnapshot(*snapshot);
  parts_.audit.CatalogLoaded(*snapshot);
  v1::ReloadReply summary = broker::Summarize(**snapshot);
  summary.set_revoked(ended);
  parts_.granting.LearnExecutables(
      [this, summary = std::move(summary)]() mutable {
        EnforceOrTell(summary);
        FinishReload(std::move(summary));
      });
}

void Service::EnforceOrTell(v1::ReloadReply& reply) {
  const std::vector<uint64_t> ids = parts_.granting.NotAllowed();
  if (ids.empty()) return;
  if (enforcing_) {
    for (const uint64_t id : ids) {
      parts_.granting.End(id, v1::REASON_POLICY_CHANGED);
    }
    reply.set_revoked(reply.revoked() + static_cast<uint32_t>(ids.size()));
    return;
  }
  spdlog::warn(
      "{} live grants would not be given any more; `bpfgrantctl reload "
      "--enforce` ends them",
      ids.size());
  size_t bytes = 0;
  for (const uint64_t id : ids) {
    const v1::GrantInfo& info = parts_.ledger.Find(id)->info;
    bytes += info.ByteSizeLong();
    // The rest is in the next reply, when these have ended.
    if (bytes > kListReplyBytes / 2) break;
    *reply.add_not_allowed() = info;
  }
}

void Service::FinishReload(absl::StatusOr<v1::ReloadReply> reply) {
  reloads_.Record(std::chrono::steady_clock::now() - reload_began_);
  if (!reply.ok()) ++rejected_reloads_;
  v1::Event event;
  event.set_type(v1::Event::TYPE_RELOADED);
  if (reply.ok()) {
    last_reload_ = "ok";
    spdlog::info("reloaded: {} programs, {} unavailable, {} rules",
                 reply->programs(), reply->unavailable_size(), reply->rules());
    WarnOf(*reply, parts_.granting.snapshot().rules(),
           parts_.executables.why_not());
  } else {
    last_reload_ = std::string(reply.status().message());
    spdlog::error("reload rejected, the catalog and policy in force stay: {}",
                  last_reload_);
    event.set_reason(ReasonOf(reply.status()));
    parts_.audit.ReloadRejected(reply.status());
  }
  event.set_message(last_reload_);
  parts_.watchers.Publish(std::move(event));
  parts_.on_reload(false);
  std::vector<Answer<v1::ReloadReply>> waiting = std::exchange(reloading_, {});
  for (Answer<v1::ReloadReply>& answer : waiting) answer(reply);
  if (!reload_next_.empty() && reloading_.empty()) StartReload();
}

}  // namespace bpfgrant::broker
