#include "daemon/broker/granting.h"

#include <fcntl.h>

#include <chrono>
#include <functional>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "policy/parameter.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"
#include "spdlog/spdlog.h"

namespace bpfgrant::broker {

namespace {

// In the order of the manifest, which is that of their bits.
std::vector<std::string> SwappableMaps(const v1::DescribeReply& description) {
  std::vector<std::string> maps;
  for (const v1::Handle& handle : description.handle()) {
    const std::string& map = handle.swappable();
    if (!map.empty() && (maps.empty() || maps.back() != map))
      maps.push_back(map);
  }
  return maps;
}

}  // namespace

v1::GrantInfo Granting::InfoOf(const Session& session,
                               const v1::AcquireRequest& request) {
  v1::GrantInfo info;
  info.set_program(request.program());
  info.set_interface(request.interface());
  info.set_session(session.id);
  info.set_uid(session.peer.subject.uid);
  info.set_pid(static_cast<uint32_t>(session.peer.pid));
  info.set_unit(session.peer.unit());
  info.set_label(session.peer.subject.label.value_or(""));
  return info;
}

void Granting::Acquire(Session& session, const v1::AcquireRequest& request,
                       std::vector<UniqueFd> fds, bool claim_later,
                       Answer answer) {
  LookAndTry(session, request,
             {std::move(fds), claim_later, std::move(answer), session.request},
             std::nullopt);
}

void Granting::LookAndTry(Session& session, const v1::AcquireRequest& request,
                          Company company,
                          std::optional<Remains::Clock::time_point> until) {
  if (!HasToLook(session, request.program())) {
    TryAcquire(session, request, std::move(company), until);
    return;
  }
  Look(session,
       [this, request, until, info = InfoOf(session, request),
        company = std::move(company)](absl::StatusOr<Session*> looked) mutable {
         if (looked.ok()) {
           TryAcquire(**looked, request, std::move(company), until);
         } else {
           Deny(info, looked.status(), std::move(company.answer));
         }
       });
}

void Granting::TryAcquire(Session& session, const v1::AcquireRequest& request,
                          Company company,
                          std::optional<Remains::Clock::time_point> until) {
  absl::StatusOr<Wanted> wanted =
      Check(session, request, company.fds.size(), company.claim_later);
  if (wanted.ok()) {
    Take(session, request, std::move(company), *std::move(wanted));
    return;
  }
  const v1::Refusal refusal = RefusalOf(wanted.status());
  if (refusal.has_verdict()) {
    NoteVerdict(session, request.program(), refusal.verdict());
  }
  const auto now = Remains::Clock::now();
  const auto rule = RuleToWaitFor(session, request, wanted.status());
  if (!rule.has_value() || now >= until.value_or(now + kRoomDeadline)) {
    Deny(InfoOf(session, request), wanted.status(), std::move(company.answer));
    return;
  }
  AwaitRoom(session, *rule, request, std::move(company),
            until.value_or(now + kRoomDeadline));
}

void Granting::Take(Session& session, const v1::AcquireRequest& request,
                    Company company, Wanted wanted) {
  const v1::DescribeReply& description = wanted.program->description();
  NoteVerdict(session, request.program(), wanted.verdict);
  const uid_t uid = session.peer.subject.uid;
  const Choice choice{uid, std::move(wanted.constants)};
  v1::GrantInfo info = InfoOf(session, request);
  info.set_rule(wanted.verdict.rule());
  if (absl::Status status = SpendAcquire(info); !status.ok()) {
    Deny(info, status, std::move(company.answer));
    return;
  }
  absl::StatusOr<Instance> ready =
      parts_.pool.TakeReady(*wanted.program, choice);
  if (!ready.ok()) {
    if (absl::Status status = SpendLoad(info, choice); !status.ok()) {
      Deny(info, status, std::move(company.answer));
      return;
    }
  }
  Grant entry;
  entry.handles = std::move(wanted.handles);
  entry.entries = std::move(wanted.entries);
  entry.swappable = SwappableMaps(description);
  entry.program = std::shared_ptr<const Program>(snapshot_, wanted.program);
  entry.info = std::move(info);
  entry.map_bytes = description.instance_bytes();
  entry.info.set_digest(description.digest());
  entry.info.set_variant(ChosenVariant(description));
  for (const v1::ParameterValue& value : request.parameter()) {
    entry.info.add_parameter(
        absl::StrCat(value.name(), "=", policy::DescribeValue(value)));
  }
  entry.request = company.request;
  entry.info.set_delivery(wanted.delivery);
  entry.info.set_began_unix_ms(UnixMs());
  Target target =
      TargetOf(entry.entries, std::move(company.fds), RingOf(request));
  const uint64_t id = parts_.ledger.Add(std::move(entry)).info.grant();
  session.grants.insert(id);
  if (ready.ok()) {
    OnInstance(id, std::move(target), company.claim_later, std::move(ready),
               std::move(company.answer));
    return;
  }
  CountWaiting(session.id, uid, 1);
  parts_.pool.TakeWhenLoaded(
      *wanted.program, id, SharedMaps(session, *wanted.program),
      [this, id, uid, session_id = session.id, target = std::move(target),
       claim_later = company.claim_later,
       identity = wanted.program->entry.identity(),
       answer = std::move(company.answer)](
          absl::StatusOr<Instance> instance) mutable {
        CountWaiting(session_id, uid, -1);
        KeepShared(id, session_id, identity, instance);
        OnInstance(id, std::move(target), claim_later, std::move(instance),
                   std::move(answer));
      },
      choice);
}

std::vector<UniqueFd> Granting::SharedMaps(Session& session,
                                           const Program& program) {
  if (program.entry.session_map_size() == 0) return {};
  Session::Shared& shared = session.shared[program.entry.identity()];
  shared.loading = shared.maps.empty();
  return CopyFds(shared.maps);
}

void Granting::KeepShared(uint64_t grant, uint64_t session_id,
                          const std::string& identity,
                          absl::StatusOr<Instance>& instance) {
  Session* session = parts_.find_session(session_id);
  if (session == nullptr) return;
  const auto found = session->shared.find(identity);
  if (found == session->shared.end()) return;
  Session::Shared& shared = found->second;
  shared.loading = false;
  const Grant* holder = parts_.ledger.Find(grant);
  if (!instance.ok() || instance->session_maps.empty() || holder == nullptr) {
    return;
  }
  shared.holder = holder->info;
  *shared.holder.mutable_map_id() = {instance->session_map_ids.begin(),
                                     instance->session_map_ids.end()};
  shared.record =
      parts_.ledger.CommitShared(shared.holder, identity, *instance);
  shared.maps = std::exchange(instance->session_maps, {});
  shared.gate = instance->gate;
}

void Granting::OnInstance(uint64_t id, Target target, bool claim_later,
                          absl::StatusOr<Instance> instance, Answer answer) {
  Grant* grant = parts_.ledger.Find(id);
  if (grant == nullptr) {
    if (instance.ok()) parts_.pool.Discard(*std::move(instance));
    answer(Refuse(v1::REASON_SESSION_ENDED,
                  "the grant ended before it was loaded"));
    return;
  }
  if (!instance.ok()) {
    Abandon(id, instance.status(), std::move(answer));
    return;
  }
  *grant->info.mutable_program_id() = {instance->program_ids.begin(),
                                       instance->program_ids.end()};
  *grant->info.mutable_map_id() = {instance->map_ids.begin(),
                                   instance->map_ids.end()};
  grant->instance = *std::move(instance);
  grant->loaded = true;
  if (!claim_later) {
    Finish(*grant, std::move(target), std::move(answer));
    return;
  }
  if (Session* session = parts_.find_session(grant->info.session())) {
    AwaitClaim(*session, *grant);
  }
  parts_.ledger.Commit(*grant);
  Delivered delivered{Describe(*grant), {}};
  delivered.reply.set_claimable(true);
  answer(std::move(delivered));
}

void Granting::AwaitClaim(Session& session, Grant& grant) {
  ++session.unclaimed;
  grant.claim_deadline = parts_.loop.Timer(
      kClaimDeadline,
      [this, id = grant.info.grant()] { End(id, v1::REASON_TIMED_OUT); });
}

void Granting::Claim(Session& session, const v1::ClaimRequest& request,
                     std::vector<UniqueFd> fds, Answer answer) {
  Grant* grant = parts_.ledger.Find(request.grant());
  if (grant == nullptr || grant->info.session() != session.id) {
    answer(Refuse(v1::REASON_UNKNOWN_GRANT,
                  absl::StrCat("this session has no grant ", request.grant())));
    return;
  }
  if (!grant->loaded) {
    answer(Refuse(v1::REASON_BUSY, absl::StrCat("grant ", request.grant(),
                                                " is still being loaded")));
    return;
  }
  if (!grant->claim_deadline.active()) {
    answer(Refuse(
        v1::REASON_ALREADY_CLAIMED,
        absl::StrCat("grant ", request.grant(), " was handed over already")));
    return;
  }
  const absl::StatusOr<size_t> left = CountUnnamed(grant->entries, fds.size());
  if (absl::Status status =
          left.ok() ? CheckCompany(grant->info.delivery(), v1::DELIVERY_ANY,
                                   *left, RingOf(request))
                    : left.status();
      !status.ok()) {
    answer(status);
    return;
  }
  grant->claim_deadline = EventLoop::Source();
  --session.unclaimed;
  grant->request = session.request;
  Target target = TargetOf(grant->entries, std::move(fds), RingOf(request));
  Finish(*grant, std::move(target), std::move(answer));
}

void Granting::HandOver(Grant& grant, Target target, Answer answer) {
  switch (grant.info.delivery()) {
    case v1::DELIVERY_ATTACH:
      AttachFd(grant, std::move(target), std::move(answer));
      return;
    case v1::DELIVERY_RING:
      AttachRing(grant, target, std::move(answer));
      return;
    case v1::DELIVERY_PROCESS:
      Enroll(grant, std::move(answer));
      return;
    default:
      answer(Deliver(grant));
  }
}

void Granting::AttachFd(Grant& grant, Target target, Answer answer) {
  daemon::LoaderRequest request;
  request.mutable_attach()->set_program(grant.info.program());
  request.mutable_attach()->set_owner(grant.info.uid());
  request.mutable_attach()->set_until_ns(MonotonicNs(kAttachDeadline));
  std::vector<UniqueFd> fds;
  fds.emplace_back(fcntl(grant.instance.fds.front().get(), F_DUPFD_CLOEXEC, 0));
  fds.push_back(std::move(target.fd));
  Attach(grant, std::move(request), std::move(fds), std::move(answer));
}

void Granting::AttachRing(Grant& grant, const Target& target, Answer answer) {
  daemon::LoaderRequest request;
  daemon::AttachLoopRequest& attach = *request.mutable_attach_loop();
  attach.set_gate_slot(grant.instance.gate.slot);
  attach.set_gate_nonce(grant.instance.gate.nonce);
  attach.set_ring(*target.ring);
  attach.set_owner(grant.info.uid());
  attach.set_until_ns(MonotonicNs(kAttachDeadline));
  AttachToProcess(grant, std::move(request), std::move(answer));
}

void Granting::Enroll(Grant& grant, Answer answer) {
  daemon::LoaderRequest request;
  daemon::EnrollRequest& enroll = *request.mutable_enroll();
  enroll.set_gate_slot(grant.instance.gate.slot);
  enroll.set_gate_nonce(grant.instance.gate.nonce);
  enroll.set_until_ns(MonotonicNs(kAttachDeadline));
  AttachToProcess(grant, std::move(request), std::move(answer));
}

void Granting::AttachToProcess(Grant& grant, daemon::LoaderRequest request,
                               Answer answer) {
  const Session* session = parts_.find_session(grant.info.session());
  std::vector<UniqueFd> fds;
  // The process that connected, whatever has its pid by now.
  if (session != nullptr) {
    fds.emplace_back(fcntl(session->peer.pidfd.get(), F_DUPFD_CLOEXEC, 0));
  }
  if (fds.empty() || !fds.front().valid()) {
    Abandon(grant.info.grant(),
            Refuse(v1::REASON_BUSY, "the client's process cannot be named"),
            std::move(answer));
    return;
  }
  Attach(grant, std::move(request), std::move(fds), std::move(answer));
}

void Granting::Attach(const Grant& grant, daemon::LoaderRequest request,
                      std::vector<UniqueFd> fds, Answer answer) {
  CountWaiting(grant.info.session(), grant.info.uid(), 1);
  // What begins in time is given its whole deadline.
  parts_.loader.Send(
      std::move(request), std::move(fds), 2 * kAttachDeadline + kAttachGrace,
      [this, id = grant.info.grant(), session_id = grant.info.session(),
       uid = uid_t{grant.info.uid()}, answer = std::move(answer)](
          absl::StatusOr<LoaderClient::Reply> reply) mutable {
        CountWaiting(session_id, uid, -1);
        Grant* attached = parts_.ledger.Find(id);
        if (attached == nullptr) {
          // Its gate is closed: what was attached does nothing.
          answer(Refuse(v1::REASON_SESSION_ENDED,
                        "the grant ended while it was attached"));
          return;
        }
        if (!reply.ok()) {
          Abandon(id, reply.status(), std::move(answer));
          return;
        }
        answer(Deliver(*attached));
      });
}

void Granting::CountWaiting(uint64_t session_id, uid_t uid, int change) {
  if (Session* session = parts_.find_session(session_id)) {
    session->waiting += change;
  }
  const auto of_user = waiting_of_user_.try_emplace(uid, 0).first;
  of_user->second += change;
  if (of_user->second == 0) waiting_of_user_.erase(of_user);
}

std::vector<UniqueFd> Granting::TakeHandles(Grant& grant) {
  std::vector<UniqueFd> handles;
  handles.reserve(grant.handles.size() + 1);
  std::vector<UniqueFd>& fds = grant.instance.fds;
  if (grant.info.delivery() == v1::DELIVERY_PROGRAM) {
    handles.push_back(std::move(fds.front()));
  }
  for (const int handle : grant.handles) {
    handles.push_back(std::move(fds[handle + 1]));
  }
  // What the client did not ask for it does not get; the program keeps its maps
  // alive by itself, and whoever holds its fd or attachment keeps the program.
  fds.clear();
  return handles;
}

Delivered Granting::Deliver(Grant& grant) {
  Delivered delivered{Describe(grant), TakeHandles(grant)};
  grant.program.reset();
  grant.info.set_claimed(true);
  parts_.gates.Open(grant.instance.gate);
  grant.on_record = parts_.audit.GrantBegan(grant.info);
  // From here on it is granted, whatever becomes of this process.
  if (parts_.ledger.has_file()) {
    grant.reply = delivered.reply;
    parts_.ledger.Commit(grant);
  }
  v1::Event event;
  event.set_type(v1::Event::TYPE_GRANT_BEGAN);
  *event.mutable_grant() = grant.info;
  parts_.watchers.Publish(std::move(event));
  return delivered;
}

v1::AcquireReply Granting::Describe(const Grant& grant) const {
  const v1::DescribeReply& description = grant.program->description();
  v1::AcquireReply reply;
  reply.set_grant(grant.info.grant());
  reply.set_delivery(grant.info.delivery());
  reply.set_interface(grant.info.interface());
  reply.set_interface_hash(description.interface_hash());
  if (grant.info.delivery() == v1::DELIVERY_PROGRAM) {
    v1::Handle& program = *reply.add_handle();
    program.set_name("program");
    program.set_kind(v1::HANDLE_KIND_PROGRAM);
  }
  for (const int handle : grant.handles) {
    *reply.add_handle() = description.handle(handle);
  }
  return reply;
}

Grant Granting::Remove(uint64_t id, v1::Reason why) {
  const bool counts = parts_.ledger.Find(id)->loaded && CountsUntilGone();
  Grant grant =
      counts ? parts_.ledger.Retire(id, why) : parts_.ledger.Remove(id);
  if (grant.loaded) {
    Instance ended{{}, grant.instance.gate, {}, grant.instance.kept, {}, {},
                   {}};
    parts_.pool.Discard(std::move(ended), counts ? id : 0,
                        parts_.mitigations.gate_closes);
  }
  if (Session* session = parts_.find_session(grant.info.session())) {
    session->grants.erase(id);
    if (grant.claim_deadline.active()) --session->unclaimed;
  }
  return grant;
}

void Granting::Abandon(uint64_t id, const absl::Status& why, Answer answer) {
  const Grant grant = Remove(id, ReasonOf(why));
  Deny(grant.info, why, std::move(answer));
}

void Granting::Deny(const v1::GrantInfo& wanted, const absl::Status& why,
                    Answer answer) {
  parts_.audit.GrantDenied(wanted, why);
  answer(why);
}

void Granting::End(uint64_t id, v1::Reason reason) {
  if (parts_.ledger.Find(id) == nullptr) return;
  Grant grant = Remove(id, reason);
  // Its request, if it still waits for the loader, is answered by this.
  if (!grant.loaded) parts_.pool.Cancel(id);
  if (!grant.info.claimed() && !grant.loaded) return;
  if (grant.on_record) parts_.audit.GrantEnded(grant.info, reason);
  v1::Event event;
  event.set_type(v1::Event::TYPE_GRANT_ENDED);
  event.set_reason(reason);
  event.set_at_unix_ms(UnixMs());
  *event.mutable_grant() = std::move(grant.info);
  uint64_t told = 0;
  Session* session = parts_.find_session(event.grant().session());
  if (session != nullptr && reason != v1::REASON_SESSION_ENDED) {
    told = session->watch;
    if (reason != v1::REASON_RELEASED || told != 0) session->notify(event);
  }
  parts_.watchers.Publish(std::move(event), told);
}

void Granting::EndSession(Session& session, v1::Reason reason) {
  while (!session.grants.empty()) End(*session.grants.begin(), reason);
  GiveUpSharedMaps(session, reason);
}

}  // namespace bpfgrant::broker
