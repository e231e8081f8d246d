// The calls about the policy: Explain, Matrix, Denials.

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "daemon/broker/identify.h"
#include "daemon/broker/service.h"
#include "daemon/broker/subject.h"
#include "policy/policy.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant::broker {
namespace {

// A delivery that was chosen, and on what grounds.
std::string WhatAndWhy(v1::Delivery delivery, const Program& program) {
  const v1::ProgramDescription& detail = program.description().detail();
  switch (delivery) {
    case v1::DELIVERY_PROGRAM:
      return program.dangerous() ? "PROGRAM: the rule trusts the caller"
                                 : "PROGRAM: the fd is harmless on this kernel";
    case v1::DELIVERY_RING:
      return "RING: attached to the client's own ring, restricted before";
    case v1::DELIVERY_PROCESS:
      return "PROCESS: attached once for the machine, serves the client's "
             "process";
    default:
      return absl::StrCat(
          "ATTACH to a ",
          detail.target() == v1::TARGET_TUN ? "tun device: " : "socket: ",
          program.dangerous() ? detail.fd_danger()
                              : "the manifest lists nothing else");
  }
}

std::string Observed(const v1::Verdict& verdict) {
  if (verdict.observed_rule().empty()) return "";
  return absl::StrCat("; rule '", verdict.observed_rule(), "' (",
                      verdict.observed_file(), ":", verdict.observed_line(),
                      ") observes and would deny it");
}

// Adds the rules that were asked, as many as a frame has room for: those that
// decide come first.
void AddConsulted(std::vector<v1::ConsultedRule> consulted,
                  v1::ExplainReply& reply) {
  size_t bytes = 0;
  for (v1::ConsultedRule& rule : consulted) {
    bytes += rule.ByteSizeLong();
    if (bytes > kListReplyBytes) return;
    *reply.add_consulted() = std::move(rule);
  }
}

}  // namespace

absl::Status Service::CheckExplain(const Session& session,
                                   const v1::ExplainRequest& request) {
  // What callers say of their own groups is not what the kernel says.
  if ((request.has_subject() || request.has_pid()) && !session.administrator) {
    return Refuse(v1::REASON_NOT_ADMINISTRATOR,
                  "only an administrator may name who it is about; without "
                  "that it is about the caller");
  }
  if (request.has_subject() && request.has_pid()) {
    return Refuse(v1::REASON_INVALID_ARGUMENT,
                  "name a process or somebody made up, not both");
  }
  if (request.program().empty() || request.program().size() > kMaxNameBytes) {
    return Refuse(v1::REASON_INVALID_ARGUMENT, "name one program");
  }
  return absl::OkStatus();
}

void Service::ExplainAllowed(const policy::Subject& subject,
                             const Program* program,
                             v1::ExplainReply& reply) const {
  const v1::Verdict& verdict = reply.verdict();
  std::string& sentence = *reply.mutable_sentence();
  reply.set_in_use(parts_.ledger.InUse(verdict.rule(), subject.uid));
  absl::StrAppend(&sentence, "; ", reply.in_use(), " of ", verdict.quota(),
                  " grants in use");
  if (const uint32_t retired =
          parts_.ledger.RetiredOf(verdict.rule(), subject.uid);
      retired > 0) {
    absl::StrAppend(&sentence, ", ", retired,
                    " of which have ended and are still held");
  }
  v1::GrantInfo grant;
  grant.set_rule(verdict.rule());
  grant.set_uid(subject.uid);
  if (subject.location.has_value()) grant.set_unit(subject.location->unit);
  for (std::string& amount : parts_.ledger.charges().Describe(grant)) {
    reply.add_amount(std::move(amount));
  }
  absl::StrAppend(&sentence, Observed(verdict));
  if (program == nullptr || !program->available()) {
    absl::StrAppend(&sentence, program == nullptr
                                   ? "; but no such program is approved"
                                   : "; but it was refused at admission");
    return;
  }
  reply.set_available(true);
  const auto delivery =
      parts_.granting.ChooseDelivery(*program, verdict, v1::DELIVERY_ANY);
  reply.set_delivery(delivery.ok() ? WhatAndWhy(*delivery, *program)
                                   : std::string(delivery.status().message()));
  absl::StrAppend(&sentence, "; ", reply.delivery());
}

void Service::Explain(Session& session, const v1::ExplainRequest& request,
                      Answer<v1::ExplainReply> answer) {
  if (absl::Status status = CheckExplain(session, request); !status.ok()) {
    answer(status);
  } else if (request.has_pid()) {
    ExplainProcess(session, request, std::move(answer));
  } else if (request.has_subject()) {
    answer(ExplainSubject(session, request, FromMessage(request.subject())));
  } else {
    WhenKnown(session, request, &Service::ExplainCaller, std::move(answer));
  }
}

absl::StatusOr<v1::ExplainReply> Service::ExplainCaller(
    const Session& session, const v1::ExplainRequest& request) const {
  return ExplainSubject(session, request, session.peer.subject);
}

void Service::ExplainProcess(Session& session,
                             const v1::ExplainRequest& request,
                             Answer<v1::ExplainReply> answer) {
  absl::StatusOr<Peer> process = IdentifyProcess(
      static_cast<pid_t>(request.pid()), parts_.granting.mitigations());
  if (!process.ok()) {
    answer(process.status());
    return;
  }
  const policy::Rules& rules = parts_.granting.snapshot().rules();
  if (!rules.AskForExecutable(process->subject, request.program())) {
    answer(ExplainSubject(session, request, process->subject));
    return;
  }
  parts_.executables.Read(
      process->pidfd, process->subject.uid,
      rules.KindsOfExecutable(process->subject),
      [this, request, id = session.id, subject = process->subject,
       answer = std::move(answer)](
          absl::StatusOr<policy::ExecutableFacts> facts) mutable {
        const Session* asking = parts_.find_session(id);
        if (asking == nullptr) {
          answer(Refuse(v1::REASON_SESSION_ENDED, "the session ended"));
          return;
        }
        if (!facts.ok()) {
          answer(facts.status());
          return;
        }
        subject.executable = *std::move(facts);
        answer(ExplainSubject(*asking, request, subject));
      });
}

v1::ExplainReply Service::ExplainSubject(const Session& session,
                                         const v1::ExplainRequest& request,
                                         const policy::Subject& subject) const {
  const Snapshot& snapshot = parts_.granting.snapshot();
  v1::ExplainReply reply;
  *reply.mutable_verdict() =
      snapshot.rules().Decide(subject, request.program());
  const bool allowed = reply.verdict().allowed();
  reply.set_sentence(absl::StrCat(
      "uid ", subject.uid, allowed ? " may" : " may not", " have '",
      request.program(), "': ", policy::DescribeVerdict(reply.verdict())));
  if (allowed) {
    ExplainAllowed(subject, snapshot.Find(request.program()), reply);
  }
  *reply.mutable_subject() = ToMessage(subject);
  // Rules are about others, too.
  if (session.administrator) {
    AddConsulted(snapshot.rules().Consult(subject, request.program()), reply);
  }
  return reply;
}

absl::StatusOr<v1::MatrixReply> Service::Matrix(
    const Session& session, const v1::MatrixRequest& request) const {
  if (absl::Status status = CheckAdministrator(session); !status.ok()) {
    return status;
  }
  const Snapshot& snapshot = parts_.granting.snapshot();
  std::vector<std::string> programs;
  for (const auto& [name, program] : snapshot.programs()) {
    programs.push_back(name);
  }
  return snapshot.rules().Matrix(programs, request.after(), kListReplyBytes);
}

absl::StatusOr<v1::DenialsReply> Service::Denials(
    const Session& session, const v1::DenialsRequest& request) const {
  if (absl::Status status = CheckAdministrator(session); !status.ok()) {
    return status;
  }
  v1::DenialsReply reply;
  size_t bytes = 0;
  parts_.granting.denials().ForEach(
      request.after(), [&](const v1::Denial& denial) {
        bytes += denial.ByteSizeLong();
        if (bytes > kListReplyBytes && reply.denial_size() > 0) {
          reply.set_next(reply.denial(reply.denial_size() - 1).id());
          return false;
        }
        *reply.add_denial() = denial;
        return true;
      });
  return reply;
}

}  // namespace bpfgrant::broker
