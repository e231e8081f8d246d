// Granting under another catalog and policy.

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "daemon/broker/granting.h"

namespace bpfgrant::broker {
namespace {

// Whether nobody approves the program any more: its manifest is gone, or no key
// that counts has signed it. Any other entry that is broken keeps its grants.
bool IsWithdrawn(const Program* program) {
  return program == nullptr ||
         program->description().summary().reason() == v1::REASON_SIGNATURE;
}

}  // namespace

uint32_t Granting::SetSnapshot(std::shared_ptr<const Snapshot> snapshot) {
  snapshot_ = std::move(snapshot);
  const std::vector<uint64_t> withdrawn =
      parts_.ledger.Select([this](const Grant& grant) {
        return IsWithdrawn(snapshot_->Find(grant.info.program()));
      });
  for (const uint64_t id : withdrawn) End(id, v1::REASON_WITHDRAWN);
  parts_.ledger.SetRules(snapshot_->rules());
  parts_.pool.SetCatalog(snapshot_);
  return static_cast<uint32_t>(withdrawn.size());
}

std::vector<uint64_t> Granting::NotAllowed() const {
  return parts_.ledger.Select([this](const Grant& grant) {
    const Session* session = parts_.find_session(grant.info.session());
    const Program* program = snapshot_->Find(grant.info.program());
    if (session == nullptr || program == nullptr) return false;
    const v1::Verdict verdict =
        snapshot_->rules().Decide(session->peer.subject, grant.info.program());
    const bool fd_allowed = grant.info.delivery() != v1::DELIVERY_PROGRAM ||
                            !program->dangerous() || verdict.trusted() ||
                            !parts_.mitigations.dangerous_program_fd;
    return !verdict.allowed() || !fd_allowed;
  });
}

}  // namespace bpfgrant::broker
