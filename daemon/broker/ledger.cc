#include "daemon/broker/ledger.h"

#include <utility>

namespace bpfgrant::broker {

Grant& Ledger::Add(Grant grant) {
  const uint64_t id = next_++;
  grant.info.set_grant(id);
  Count(grant.info, 1);
  return grants_.emplace(id, std::move(grant)).first->second;
}

Grant* Ledger::Find(uint64_t id) {
  const auto found = grants_.find(id);
  return found == grants_.end() ? nullptr : &found->second;
}

Grant Ledger::Remove(uint64_t id) {
  const auto found = grants_.find(id);
  Grant grant = std::move(found->second);
  grants_.erase(found);
  Count(grant.info, -1);
  return grant;
}

uint32_t Ledger::InUse(const std::string& rule, uid_t uid) const {
  const auto found = in_use_.find(std::make_pair(rule, uid));
  return found == in_use_.end() ? 0 : found->second;
}

uint32_t Ledger::OfProgram(const std::string& program) const {
  const auto found = of_program_.find(program);
  return found == of_program_.end() ? 0 : found->second;
}

void Ledger::ForEach(uint64_t after,
                     absl::FunctionRef<bool(const Grant&)> visit) const {
  for (auto entry = grants_.upper_bound(after); entry != grants_.end();
       ++entry) {
    if (!visit(entry->second)) return;
  }
}

std::vector<uint64_t> Ledger::Select(
    absl::FunctionRef<bool(const Grant&)> matches) const {
  std::vector<uint64_t> ids;
  for (const auto& [id, grant] : grants_) {
    if (matches(grant)) ids.push_back(id);
  }
  return ids;
}

void Ledger::Count(const v1::GrantInfo& info, int change) {
  const auto change_in = [change](auto& counts, auto key) {
    const auto entry = counts.try_emplace(std::move(key), 0).first;
    entry->second += change;
    if (entry->second == 0) counts.erase(entry);
  };
  change_in(in_use_, std::make_pair(info.rule(), uid_t{info.uid()}));
  change_in(of_program_, info.program());
}

}  // namespace bpfgrant::broker
