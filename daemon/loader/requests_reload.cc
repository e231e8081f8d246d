// Requests, as far as they read catalog and policy again, entry by entry.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "daemon/loader/admission_files.h"
#include "daemon/loader/key_ring.h"
#include "daemon/loader/policy_files.h"
#include "daemon/loader/requests.h"
#include "daemon/loader/safe_file.h"
#include "daemon/loader/signature_check.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::daemon {

absl::StatusOr<UniqueFd> Requests::Read() {
  auto reload = BeginReload();
  if (!reload.ok()) return reload.status();
  while (reload->catalog.Step()) {
  }
  return FinishReload(*std::move(reload));
}

absl::StatusOr<Requests::Reload> Requests::BeginReload() {
  auto policy = ReadPolicy(options_.policy_directories,
                           options_.catalog_directories, options_.mitigations);
  if (!policy.ok()) return policy.status();
  auto limits =
      ReadAdmissionLimits(options_.admission_files, options_.mitigations);
  if (!limits.ok()) return limits.status();
  if (options_.mitigations.admission_limits) {
    if (auto status = limits->CheckTrust(policy->rules, MachineNames());
        !status.ok()) {
      return status;
    }
  }
  auto keys = KeyRing::Read(options_.key_directories, options_.mitigations);
  if (!keys.ok()) return keys.status();
  SignatureCheck signatures;
  if (options_.mitigations.signatures) {
    signatures =
        SignatureCheck(std::move(policy->signatures), *std::move(keys));
  }
  auto catalog = CatalogReader::Begin(options_.catalog_directories, admission_,
                                      std::move(signatures));
  if (!catalog.ok()) return catalog.status();
  admission_.SetLimits(*limits);
  return Reload{std::move(policy->rules), limits->Describe(),
                *std::move(catalog)};
}

absl::StatusOr<UniqueFd> Requests::FinishReload(Reload reload) {
  Catalog catalog = std::move(reload.catalog).Finish();
  Snapshot message = catalog.Describe(reload.rules);
  for (v1::LimitInForce& limit : reload.limits) {
    *message.add_admission_limit() = std::move(limit);
  }
  auto snapshot =
      SealedBytes::Copy(message.SerializeAsString(), "bpfgrant:snapshot");
  if (!snapshot.ok()) return snapshot.status();
  replaced_ = std::exchange(catalog_, std::move(catalog));
  return (*std::move(snapshot)).TakeFd();
}

absl::Status Requests::ContinueReload(Children::Clock::duration time) {
  const auto until = Children::Clock::now() + time;
  do {
    if (replaced_.ForgetOne()) continue;
    if (reloads_.empty()) break;
    if (!reload_.has_value()) {
      auto begun = BeginReload();
      if (!begun.ok()) return AnswerReload(begun.status());
      reload_.emplace(*std::move(begun));
    } else if (!reload_->catalog.Step()) {
      auto snapshot = FinishReload(*std::exchange(reload_, std::nullopt));
      return AnswerReload(std::move(snapshot));
    }
  } while (Children::Clock::now() < until);
  return absl::OkStatus();
}

absl::Status Requests::AnswerReload(absl::StatusOr<UniqueFd> snapshot) {
  const uint64_t id = reloads_.front();
  reloads_.pop_front();
  if (!snapshot.ok()) {
    // One advice is enough.
    std::string what(snapshot.status().message());
    const std::string_view advice = NextStep(ReasonOf(snapshot.status()));
    if (what.ends_with(advice)) what.resize(what.size() - advice.size());
    return SendRefusal(id, Refuse(v1::REASON_RELOAD_REJECTED, what));
  }
  LoaderReply reply;
  reply.set_id(id);
  reply.mutable_reload();
  std::vector<UniqueFd> fds;
  fds.push_back(*std::move(snapshot));
  return broker_.Send(std::move(reply), std::move(fds));
}

}  // namespace bpfgrant::daemon
