#include "daemon/broker/ledger.h"

#include <utility>

namespace bpfgrant::broker {
namespace {

template <typename Counts, typename Key>
void Change(Counts& counts, Key key, int change) {
  const auto entry = counts.try_emplace(std::move(key), 0).first;
  entry->second += change;
  if (entry->second == 0) counts.erase(entry);
}

template <typename Counts, typename Key>
uint32_t Of(const Counts& counts, const Key& key) {
  const auto found = counts.find(key);
  return found == counts.end() ? 0 : found->second;
}

}  // namespace

void Ledger::Count(Accounts& accounts, const v1::GrantInfo& info, int change) {
  Change(accounts, std::make_pair(info.rule(), uid_t{info.uid()}), change);
}

Grant& Ledger::Add(Grant grant) {
  const uint64_t id = next_++;
  ++added_;
  grant.info.set_grant(id);
  Count(in_use_, grant.info, 1);
  charges_.Add(grant.info, grant.map_bytes);
  Change(of_program_, grant.info.program(), 1);
  return grants_.emplace(id, std::move(grant)).first->second;
}

Grant* Ledger::Find(uint64_t id) {
  const auto found = grants_.find(id);
  return found == grants_.end() ? nullptr : &found->second;
}

Grant Ledger::TakeOut(uint64_t id) {
  const auto found = grants_.find(id);
  Grant grant = std::move(found->second);
  grants_.erase(found);
  Change(of_program_, grant.info.program(), -1);
  return grant;
}

Grant Ledger::Remove(uint64_t id) {
  Grant grant = TakeOut(id);
  Count(in_use_, grant.info, -1);
  charges_.Remove(grant.info, grant.map_bytes);
  return grant;
}

Grant Ledger::Retire(uint64_t id, v1::Reason why) {
  Grant grant = TakeOut(id);
  v1::GrantInfo& info =
      retired_.emplace(id, Retired{grant.info, grant.map_bytes})
          .first->second.info;
  info.set_ended(why);
  Count(retired_of_, info, 1);
  return grant;
}

uint64_t Ledger::AddRetired(v1::GrantInfo like) {
  const uint64_t id = next_++;
  like.set_grant(id);
  Count(in_use_, like, 1);
  Count(retired_of_, like, 1);
  charges_.Add(like, 0);
  retired_.emplace(id, Retired{std::move(like), 0});
  return id;
}

const v1::GrantInfo* Ledger::FindRetired(uint64_t id) const {
  const auto found = retired_.find(id);
  return found == retired_.end() ? nullptr : &found->second.info;
}

void Ledger::SetHeld(uint64_t id, const std::string& object) {
  const auto found = retired_.find(id);
  if (found != retired_.end()) found->second.info.set_held(object);
}

v1::GrantInfo Ledger::Return(uint64_t id) {
  const auto found = retired_.find(id);
  const uint64_t map_bytes = found->second.map_bytes;
  v1::GrantInfo info = std::move(found->second.info);
  retired_.erase(found);
  Count(in_use_, info, -1);
  Count(retired_of_, info, -1);
  charges_.Remove(info, map_bytes);
  return info;
}

void Ledger::SetRules(const policy::Rules& rules) {
  charges_.SetRules(rules);
  if (!charges_.any()) return;
  for (const auto& [id, grant] : grants_) {
    charges_.Add(grant.info, grant.map_bytes);
  }
  for (const auto& [id, retired] : retired_) {
    charges_.Add(retired.info, retired.map_bytes);
  }
}

uint32_t Ledger::InUse(const std::string& rule, uid_t uid) const {
  return Of(in_use_, std::make_pair(rule, uid));
}

uint32_t Ledger::RetiredOf(const std::string& rule, uid_t uid) const {
  return Of(retired_of_, std::make_pair(rule, uid));
}

uint32_t Ledger::OfProgram(const std::string& program) const {
  return Of(of_program_, program);
}

void Ledger::ForEach(
    uint64_t after, absl::FunctionRef<bool(const v1::GrantInfo&)> visit) const {
  auto live = grants_.upper_bound(after);
  auto ended = retired_.upper_bound(after);
  while (live != grants_.end() || ended != retired_.end()) {
    const bool is_live = live != grants_.end() && (ended == retired_.end() ||
                                                   live->first < ended->first);
    if (!visit(is_live ? (live++)->second.info : (ended++)->second.info))
      return;
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

}  // namespace bpfgrant::broker
