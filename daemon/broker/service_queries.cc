// The calls that change nothing: List, Describe, Grants, Status. Those about
// the policy are in service_policy.cc.

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/broker/service.h"
#include "policy/policy.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant::broker {
namespace {

bool MaySee(const Session& session, const v1::Verdict& verdict) {
  return session.administrator || verdict.allowed();
}

absl::Status NoSuchProgram(const std::string& name) {
  return Refuse(v1::REASON_UNKNOWN_PROGRAM,
                absl::StrCat("no program '", name.substr(0, kMaxNameBytes),
                             "' that you may have"));
}

}  // namespace

v1::ProgramSummary Service::Summarize(const Program& program,
                                      const policy::Subject& subject) const {
  v1::ProgramSummary summary = program.description().summary();
  *summary.mutable_verdict() =
      parts_.granting.snapshot().rules().Decide(subject, program.name());
  summary.set_pool_ready(
      static_cast<uint32_t>(parts_.pool.Ready(program.name())));
  summary.set_pool_target(program.entry.pool_target());
  summary.set_grants(parts_.ledger.OfProgram(program.name()));
  return summary;
}

void Service::List(Session& session, const v1::ListRequest& request,
                   Answer<v1::ListReply> answer) {
  WhenKnown(session, request, &Service::ListKnown, std::move(answer));
}

void Service::Describe(Session& session, const v1::DescribeRequest& request,
                       Answer<v1::DescribeReply> answer) {
  WhenKnown(session, request, &Service::DescribeKnown, std::move(answer));
}

absl::StatusOr<v1::ListReply> Service::ListKnown(
    const Session& session, const v1::ListRequest& request) const {
  v1::ListReply reply;
  const auto& programs = parts_.granting.snapshot().programs();
  size_t bytes = 0;
  for (auto entry = programs.upper_bound(request.after());
       entry != programs.end(); ++entry) {
    v1::ProgramSummary summary = Summarize(entry->second, session.peer.subject);
    if (!MaySee(session, summary.verdict())) continue;
    bytes += summary.ByteSizeLong();
    if (bytes > kListReplyBytes && reply.program_size() > 0) {
      reply.set_next(reply.program(reply.program_size() - 1).name());
      break;
    }
    *reply.add_program() = std::move(summary);
  }
  return reply;
}

absl::StatusOr<v1::DescribeReply> Service::DescribeKnown(
    const Session& session, const v1::DescribeRequest& request) const {
  const Program* program = parts_.granting.snapshot().Find(request.program());
  if (program == nullptr) return NoSuchProgram(request.program());
  v1::DescribeReply reply = program->description();
  *reply.mutable_summary() = Summarize(*program, session.peer.subject);
  if (!MaySee(session, reply.summary().verdict())) {
    return NoSuchProgram(request.program());
  }
  return reply;
}

absl::StatusOr<v1::GrantsReply> Service::Grants(
    const Session& session, const v1::GrantsRequest& request) const {
  v1::GrantsReply reply;
  size_t bytes = 0;
  uint64_t last = 0;
  parts_.ledger.ForEach(request.after(), [&](const v1::GrantInfo& grant) {
    if (!session.administrator && grant.uid() != session.peer.subject.uid) {
      return true;
    }
    bytes += grant.ByteSizeLong() + 4;
    if (bytes > kListReplyBytes) {
      reply.set_next(last);
      return false;
    }
    last = grant.grant();
    *reply.add_grant() = grant;
    return true;
  });
  return reply;
}

absl::StatusOr<v1::StatusReply> Service::Status(
    const Session& session, const v1::StatusRequest&) const {
  v1::StatusReply reply;
  const v1::ReloadReply summary = broker::Summarize(parts_.granting.snapshot());
  reply.set_version(BPFGRANT_VERSION);
  reply.set_grants(static_cast<uint32_t>(parts_.ledger.size()));
  reply.set_held(static_cast<uint32_t>(parts_.ledger.retired()));
  reply.set_programs(summary.programs());
  reply.set_unavailable(
      static_cast<uint32_t>(parts_.granting.snapshot().programs().size()) -
      summary.programs());
  reply.set_rules(summary.rules());
  reply.set_gate_slots(parts_.gates.slots());
  reply.set_gate_slots_used(parts_.gates.used());
  reply.set_acquired_total(parts_.ledger.total());
  parts_.fill_status(reply);
  if (!session.administrator) {
    // Where the files are and what is wrong with them is not everybody's
    // business, nor is how much others were refused.
    reply.clear_catalog_directory();
    reply.clear_policy_directory();
    reply.clear_key_directory();
    reply.clear_admission_file();
    return reply;
  }
  reply.set_last_reload(last_reload_);
  for (const v1::LimitInForce& limit :
       parts_.granting.snapshot().admission_limits()) {
    *reply.add_admission_limit() = limit;
  }
  for (int reason = 0; reason < v1::Reason_ARRAYSIZE; ++reason) {
    if (refused_[reason] == 0) continue;
    v1::RefusalCount& count = *reply.add_refused();
    count.set_reason(static_cast<v1::Reason>(reason));
    count.set_count(refused_[reason]);
  }
  return reply;
}

}  // namespace bpfgrant::broker
