// Whether a request may be granted: names, policy, interface, handles,
// delivery, what comes with it, and quotas. Nothing is taken here.

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "daemon/broker/granting.h"
#include "policy/narrowing.h"
#include "policy/parameter.h"
#include "policy/policy.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"
#include "spdlog/spdlog.h"

namespace bpfgrant::broker {
namespace {

absl::Status CheckInterface(const v1::AcquireRequest& request,
                            const v1::DescribeReply& description) {
  const std::string& offered = description.summary().interface();
  if (request.interface() != offered) {
    return Refuse(v1::REASON_INTERFACE_MISMATCH,
                  absl::StrCat("asked for interface '", request.interface(),
                               "', the catalog has '", offered, "'"));
  }
  if (!request.interface_hash().empty() &&
      request.interface_hash() != description.interface_hash()) {
    return Refuse(v1::REASON_INTERFACE_MISMATCH,
                  absl::StrCat("'", offered,
                               "' has another layout than the one the client "
                               "was built with"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int>> ChooseHandles(
    const v1::AcquireRequest& request, const v1::DescribeReply& description) {
  std::vector<int> chosen;
  const auto& offered = description.handle();
  if (request.handle().empty()) {
    for (int i = 0; i < offered.size(); ++i) chosen.push_back(i);
    return chosen;
  }
  for (const std::string& name : request.handle()) {
    const auto found = std::find_if(
        offered.begin(), offered.end(),
        [&name](const v1::Handle& handle) { return handle.name() == name; });
    const int index = static_cast<int>(found - offered.begin());
    if (found == offered.end() ||
        std::find(chosen.begin(), chosen.end(), index) != chosen.end()) {
      return Refuse(v1::REASON_UNKNOWN_HANDLE,
                    absl::StrCat("handle '", name,
                                 "' is not offered, or was named twice"));
    }
    chosen.push_back(index);
  }
  return chosen;
}

absl::Status CheckNames(const v1::AcquireRequest& request) {
  const auto too_long = [](const std::string& name) {
    return name.size() > kMaxNameBytes;
  };
  if (request.program().empty() || too_long(request.program()) ||
      too_long(request.interface()) || request.interface_hash().size() > 64 ||
      request.handle_size() > static_cast<int>(kMaxFdsPerGrant) ||
      request.parameter_size() > kMaxParameters ||
      std::any_of(request.handle().begin(), request.handle().end(), too_long)) {
    return Refuse(v1::REASON_INVALID_ARGUMENT,
                  "a name is missing, too long, or given too often");
  }
  // proto3 lets any number in, and what is none of those would do for ANY.
  if (!v1::Delivery_IsValid(request.delivery())) {
    return Refuse(v1::REASON_INVALID_ARGUMENT, "there is no such delivery");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Granting::CheckCompany(v1::Delivery delivery, v1::Delivery wanted,
                                    size_t fd_count, std::optional<int> ring) {
  if (delivery == v1::DELIVERY_RING && (!ring.has_value() || *ring < 0)) {
    return Refuse(v1::REASON_RING_NEEDED,
                  "a loop needs the number of the client's ring");
  }
  if (delivery == v1::DELIVERY_RING && fd_count != 0) {
    return Refuse(v1::REASON_UNEXPECTED_FDS,
                  "a ring is named by its number; no fd comes with it");
  }
  if (delivery == v1::DELIVERY_PROCESS && fd_count != 0) {
    return Refuse(v1::REASON_UNEXPECTED_FDS,
                  "the program serves the process that connected; no fd comes "
                  "with the request");
  }
  if (fd_count > 1) {
    return Refuse(v1::REASON_UNEXPECTED_FDS,
                  absl::StrCat("one fd comes to be attached to, and ", fd_count,
                               " came"));
  }
  if (delivery == v1::DELIVERY_ATTACH && fd_count != 1) {
    return Refuse(v1::REASON_SOCKET_NEEDED,
                  "an attachment needs what to attach to beside the request");
  }
  // With ANY it comes along in case it is needed.
  if (delivery == v1::DELIVERY_PROGRAM &&
      fd_count > (wanted == v1::DELIVERY_ANY ? 1U : 0U)) {
    return Refuse(v1::REASON_UNEXPECTED_FDS,
                  "delivery of the program's fd takes no other");
  }
  return absl::OkStatus();
}

absl::Status Granting::CheckParameters(const v1::AcquireRequest& request,
                                       Wanted& wanted) const {
  const auto& declared = wanted.program->description().parameter();
  const auto values = policy::Settle(declared, request.parameter(),
                                     parts_.mitigations.parameter_ranges);
  if (!values.ok()) return values.status();
  const daemon::CompiledRule* rule =
      snapshot_->FindNarrowing(wanted.verdict.rule());
  if (rule != nullptr && parts_.mitigations.parameter_narrowing) {
    absl::Status status = policy::CheckNarrowing(*rule, declared, *values);
    if (!status.ok()) return status;
  }
  wanted.constants =
      policy::OtherThanDefaults(declared, *values, v1::Parameter::kConstant);
  wanted.entries =
      policy::OtherThanDefaults(declared, *values, v1::Parameter::kEntry);
  return absl::OkStatus();
}

absl::StatusOr<size_t> Granting::CountUnnamed(
    const std::vector<v1::ParameterValue>& entries, size_t fd_count) {
  std::set<uint32_t> named;
  for (const v1::ParameterValue& value : entries) {
    if (!value.has_fd()) continue;
    if (value.fd() >= fd_count || !named.insert(value.fd()).second) {
      return Refuse(v1::REASON_INVALID_ARGUMENT,
                    absl::StrCat("parameter '", value.name(),
                                 "' names an fd that did not come with the "
                                 "request, or that another one names"));
    }
  }
  return fd_count - named.size();
}

absl::StatusOr<v1::Delivery> Granting::ChooseDelivery(
    const Program& program, const v1::Verdict& verdict,
    v1::Delivery wanted) const {
  const bool harmless = !program.dangerous() || verdict.trusted() ||
                        !parts_.mitigations.dangerous_program_fd;
  if (program.Allows(v1::DELIVERY_RING) &&
      (wanted == v1::DELIVERY_RING || wanted == v1::DELIVERY_ANY)) {
    return v1::DELIVERY_RING;
  }
  if (program.Allows(v1::DELIVERY_PROCESS) &&
      (wanted == v1::DELIVERY_PROCESS || wanted == v1::DELIVERY_ANY)) {
    return v1::DELIVERY_PROCESS;
  }
  if (wanted == v1::DELIVERY_RING) {
    return Refuse(v1::REASON_DELIVERY_NOT_ALLOWED,
                  absl::StrCat("'", program.name(), "' is not a loop"));
  }
  const bool by_program = program.Allows(v1::DELIVERY_PROGRAM);
  const bool by_attachment = program.Allows(v1::DELIVERY_ATTACH);
  if (wanted == v1::DELIVERY_PROCESS) {
    return Refuse(v1::REASON_DELIVERY_NOT_ALLOWED,
                  absl::StrCat("'", program.name(),
                               "' is not a program that serves processes"));
  }
  if (wanted != v1::DELIVERY_ATTACH && by_program && harmless) {
    return v1::DELIVERY_PROGRAM;
  }
  if (wanted != v1::DELIVERY_PROGRAM && by_attachment) {
    return v1::DELIVERY_ATTACH;
  }
  if (wanted != v1::DELIVERY_ATTACH && by_program) {
    return Refuse(v1::REASON_DELIVERY_DANGEROUS,
                  absl::StrCat("'", program.name(), "': ",
                               program.description().detail().fd_danger()));
  }
  return Refuse(v1::REASON_DELIVERY_NOT_ALLOWED,
                absl::StrCat("the manifest of '", program.name(),
                             "' does not list that delivery"));
}

absl::Status Granting::CheckQuota(const Session& session,
                                  const v1::AcquireRequest& request,
                                  const Wanted& wanted) const {
  if (!parts_.mitigations.quotas) return absl::OkStatus();
  const v1::Verdict& verdict = wanted.verdict;
  const uint32_t in_use =
      parts_.ledger.InUse(verdict.rule(), session.peer.subject.uid);
  if (in_use >= verdict.quota()) {
    v1::Verdict spent = verdict;
    spent.set_allowed(false);
    spent.set_reason(v1::REASON_QUOTA);
    const uint32_t retired =
        parts_.ledger.RetiredOf(verdict.rule(), session.peer.subject.uid);
    return RefuseByVerdict(
        spent,
        absl::StrCat(
            "uid ", session.peer.subject.uid, " holds ", in_use, " of ",
            verdict.quota(), " grants under ", policy::DescribeVerdict(verdict),
            retired == 0 ? ""
                         : absl::StrCat("; ", retired,
                                        " of them have ended, but copies of "
                                        "their fds, or what was made of them, "
                                        "are still open somewhere")));
  }
  if (absl::Status status = CheckAmounts(session, request, wanted);
      !status.ok()) {
    return status;
  }
  if (session.grants.size() >= parts_.grants_per_session) {
    return Refuse(v1::REASON_QUOTA,
                  absl::StrCat("this session holds ", session.grants.size(),
                               " grants, the most for one session"));
  }
  return absl::OkStatus();
}

absl::Status Granting::CheckAmounts(const Session& session,
                                    const v1::AcquireRequest& request,
                                    const Wanted& wanted) const {
  const Charges& charges = parts_.ledger.charges();
  if (!charges.any()) return absl::OkStatus();
  v1::GrantInfo info = InfoOf(session, request);
  info.set_rule(wanted.verdict.rule());
  return charges.CheckRoom(info,
                           wanted.program->description().instance_bytes());
}

absl::Status Granting::SpendAcquire(const v1::GrantInfo& info) {
  Charges& charges = parts_.ledger.charges();
  if (!charges.any() || !parts_.mitigations.quotas) return absl::OkStatus();
  return charges.Spend(info, Charges::Rate::kAcquires, Allowance::Clock::now());
}

absl::Status Granting::SpendLoad(const v1::GrantInfo& info,
                                 const Choice& choice) {
  const auto now = Allowance::Clock::now();
  Charges& charges = parts_.ledger.charges();
  if (charges.any() && parts_.mitigations.quotas) {
    if (absl::Status status = charges.Spend(info, Charges::Rate::kLoads, now);
        !status.ok()) {
      return status;
    }
  }
  if (choice.constants.empty() || !parts_.mitigations.value_load_rate ||
      value_loads_.Take(info.uid(), now)) {
    return absl::OkStatus();
  }
  return Refuse(
      v1::REASON_RATE,
      absl::StrCat("uid ", info.uid(), " had ", kValueLoadsAtOnce,
                   " loads for other values of '", info.program(),
                   "' in a row, and has ", kValueLoadsPerMinute, " a minute"));
}

void Granting::NoteVerdict(const Session& session, const std::string& program,
                           const v1::Verdict& verdict) {
  const bool denied = verdict.reason() == v1::REASON_DENIED_BY_RULE ||
                      verdict.reason() == v1::REASON_DENIED_BY_DEFAULT;
  const bool observed = verdict.allowed() && !verdict.observed_rule().empty();
  if (!denied && !observed) return;
  const policy::Subject& subject = session.peer.subject;
  const bool is_new = denials_.Add(subject, program, verdict, UnixMs());
  if (observed && is_new) {
    spdlog::warn("uid {} (pid {}) got '{}', which rule '{}' ({}:{}) would deny",
                 subject.uid, session.peer.pid, program,
                 verdict.observed_rule(), verdict.observed_file(),
                 verdict.observed_line());
  }
}

bool Granting::IsBusy(const Session& session) const {
  const auto of_user = waiting_of_user_.find(session.peer.subject.uid);
  return session.waiting >= kMaxPendingPerSession ||
         (of_user != waiting_of_user_.end() &&
          of_user->second >= kMaxPendingPerUser);
}

absl::StatusOr<Granting::Wanted> Granting::Check(
    const Session& session, const v1::AcquireRequest& request, size_t fd_count,
    bool claim_later) const {
  if (absl::Status status = CheckNames(request); !status.ok()) return status;
  // The policy first: whoever may not have a program does not learn whether
  // there is one.
  Wanted wanted;
  wanted.verdict =
      snapshot_->rules().Decide(session.peer.subject, request.program());
  if (!wanted.verdict.allowed()) {
    return RefuseByVerdict(
        wanted.verdict,
        absl::StrCat("uid ", session.peer.subject.uid, " may not have '",
                     request.program(),
                     "': ", policy::DescribeVerdict(wanted.verdict)));
  }
  wanted.program = snapshot_->Find(request.program());
  if (wanted.program == nullptr) {
    return Refuse(v1::REASON_UNKNOWN_PROGRAM,
                  absl::StrCat("no program '", request.program(), "'"));
  }
  const v1::DescribeReply& description = wanted.program->description();
  if (!wanted.program->available()) {
    return Refuse(
        v1::REASON_PROGRAM_UNAVAILABLE,
        absl::StrCat("'", request.program(), "' was refused at admission"));
  }
  if (wanted.program->unrevocable() && !wanted.verdict.trusted()) {
    return Refuse(v1::REASON_ADMISSION_LIMIT,
                  absl::StrCat("nothing stops '", request.program(),
                               "' once it runs: it is for callers whom a rule "
                               "trusts"));
  }
  if (absl::Status status = CheckInterface(request, description);
      !status.ok()) {
    return status;
  }
  absl::StatusOr<std::vector<int>> handles =
      ChooseHandles(request, description);
  if (!handles.ok()) return handles.status();
  wanted.handles = *std::move(handles);
  if (absl::Status status = CheckParameters(request, wanted); !status.ok()) {
    return status;
  }
  const absl::StatusOr<v1::Delivery> delivery =
      ChooseDelivery(*wanted.program, wanted.verdict, request.delivery());
  if (!delivery.ok()) return delivery.status();
  wanted.delivery = *delivery;
  if (!claim_later) {
    absl::StatusOr<size_t> left = CountUnnamed(wanted.entries, fd_count);
    if (!left.ok()) return left.status();
    if (absl::Status status =
            CheckCompany(*delivery, request.delivery(), *left, RingOf(request));
        !status.ok()) {
      return status;
    }
  }
  if (absl::Status status = CheckQuota(session, request, wanted);
      !status.ok()) {
    return status;
  }
  const auto shared = session.shared.find(wanted.program->entry.identity());
  if (shared != session.shared.end() && shared->second.loading) {
    return Refuse(v1::REASON_BUSY,
                  "the session's first grant of this program, with which the "
                  "others share, is being loaded");
  }
  if (IsBusy(session) ||
      (claim_later && session.unclaimed >= kMaxUnclaimedPerSession)) {
    return Refuse(v1::REASON_BUSY,
                  "this session or user has too many requests under way, or "
                  "grants that were not claimed");
  }
  return wanted;
}

}  // namespace bpfgrant::broker
