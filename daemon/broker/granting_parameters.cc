// Parameters that go into a grant's maps, on their way to the loader.

#include <utility>
#include <vector>

#include "daemon/broker/granting.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant::broker {

Granting::Target Granting::TargetOf(
    const std::vector<v1::ParameterValue>& entries, std::vector<UniqueFd> fds,
    std::optional<int> ring) {
  Target target;
  target.ring = ring;
  for (const v1::ParameterValue& value : entries) {
    // Over gRPC they come later, with Claim.
    if (value.has_fd() && value.fd() < fds.size()) {
      target.files.push_back(std::move(fds[value.fd()]));
    }
  }
  for (UniqueFd& fd : fds) {
    if (fd.valid()) target.fd = std::move(fd);
  }
  return target;
}

void Granting::Finish(Grant& grant, Target target, Answer answer) {
  if (grant.instance.kept != KeptByLoader::kEntries) {
    HandOver(grant, std::move(target), std::move(answer));
    return;
  }
  const uint64_t id = grant.info.grant();
  daemon::LoaderRequest request;
  // All defaults are there already.
  if (grant.entries.empty()) {
    request.mutable_dismiss()->set_gate_slot(grant.instance.gate.slot);
    request.mutable_dismiss()->set_gate_nonce(grant.instance.gate.nonce);
    parts_.loader.Send(std::move(request), {}, kLoadDeadline,
                       [](const absl::StatusOr<LoaderClient::Reply>&) {});
    grant.instance.kept = KeptByLoader::kNothing;
    HandOver(grant, std::move(target), std::move(answer));
    return;
  }
  daemon::ConfigureRequest& configure = *request.mutable_configure();
  configure.set_gate_slot(grant.instance.gate.slot);
  configure.set_gate_nonce(grant.instance.gate.nonce);
  uint32_t files = 0;
  for (v1::ParameterValue& value : grant.entries) {
    v1::ParameterValue& sent = *configure.add_parameter();
    sent = std::move(value);
    if (sent.has_fd()) sent.set_fd(files++);
  }
  grant.entries.clear();
  CountWaiting(grant.info.session(), grant.info.uid(), 1);
  std::vector<UniqueFd> files_sent = std::exchange(target.files, {});
  parts_.loader.Send(
      std::move(request), std::move(files_sent), kLoadDeadline,
      [this, id, session_id = grant.info.session(),
       uid = uid_t{grant.info.uid()}, target = std::move(target),
       answer = std::move(answer)](
          absl::StatusOr<LoaderClient::Reply> reply) mutable {
        CountWaiting(session_id, uid, -1);
        Grant* configured = parts_.ledger.Find(id);
        if (configured == nullptr) {
          answer(Refuse(v1::REASON_SESSION_ENDED,
                        "the grant ended before its parameters were set"));
          return;
        }
        if (!reply.ok()) {
          Abandon(id, reply.status(), std::move(answer));
          return;
        }
        configured->instance.kept = KeptByLoader::kNothing;
        HandOver(*configured, std::move(target), std::move(answer));
      });
}

}  // namespace bpfgrant::broker
