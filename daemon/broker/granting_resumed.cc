// Granting, as far as it goes on with what an earlier broker began.

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "daemon/broker/granting.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::broker {

void Granting::Sent(uint64_t id) {
  Grant* grant = parts_.ledger.Find(id);
  if (grant == nullptr || !parts_.ledger.has_file()) return;
  parts_.ledger.MarkSent(*grant);
  // The client has its own copies now.
  parts_.keeping.ForgetInstance(grant->instance.gate);
}

std::optional<absl::StatusOr<Delivered>> Granting::DeliverAgain(
    Session& session) {
  for (const uint64_t id : session.grants) {
    Grant& grant = *parts_.ledger.Find(id);
    if (grant.request != session.request) continue;
    if (!grant.reply.has_value()) {
      return Refuse(v1::REASON_OUT_OF_ORDER,
                    absl::StrCat("frame ", session.request,
                                 " was answered with grant ", id));
    }
    return Delivered{*grant.reply, TakeHandles(grant)};
  }
  return std::nullopt;
}

void Granting::SettleUnsent(Session& session,
                            const absl::btree_set<uint64_t>& awaited,
                            const absl::btree_set<uint64_t>& held) {
  std::vector<uint64_t> arrived, given_up;
  for (const uint64_t id : session.grants) {
    const Grant& grant = *parts_.ledger.Find(id);
    if (!grant.reply.has_value()) continue;
    if (held.contains(id)) {
      arrived.push_back(id);
    } else if (!awaited.contains(grant.request)) {
      given_up.push_back(id);
    }
  }
  for (const uint64_t id : arrived) {
    parts_.ledger.Find(id)->instance.fds.clear();
    Sent(id);
  }
  for (const uint64_t id : given_up) End(id, v1::REASON_RELEASED);
}

void Granting::Restore(Session& session, Grant grant) {
  Grant& restored = parts_.ledger.Restore(std::move(grant));
  session.grants.insert(restored.info.grant());
  if (!restored.info.claimed()) AwaitClaim(session, restored);
}

}  // namespace bpfgrant::broker
