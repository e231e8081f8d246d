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

daemon::GrantRecord RecordOf(const Grant& grant,
                             daemon::GrantRecord::State state) {
  daemon::GrantRecord record;
  record.set_state(state);
  *record.mutable_info() = grant.info;
  record.set_gate_slot(grant.instance.gate.slot);
  record.set_gate_nonce(grant.instance.gate.nonce);
  record.set_kept(static_cast<uint32_t>(grant.instance.kept));
  record.set_map_bytes(grant.map_bytes);
  record.set_on_record(grant.on_record);
  if (state != daemon::GrantRecord::STATE_LIVE) return record;
  *record.mutable_swappable() = {grant.swappable.begin(),
                                 grant.swappable.end()};
  record.set_request(grant.request);
  record.set_rotated_by(grant.rotated_by);
  record.set_swaps(grant.swaps);
  if (grant.info.claimed() && !grant.reply.has_value()) return record;
  if (grant.reply.has_value()) *record.mutable_reply() = *grant.reply;
  *record.mutable_handle() = {grant.handles.begin(), grant.handles.end()};
  *record.mutable_fd_id() = {grant.instance.fd_ids.begin(),
                             grant.instance.fd_ids.end()};
  return record;
}

}  // namespace

void Ledger::Count(Accounts& accounts, const v1::GrantInfo& info, int change) {
  Change(accounts, std::make_pair(info.rule(), uid_t{info.uid()}), change);
}

uint64_t Ledger::NextId() {
  return file_ == nullptr ? next_++ : file_->NextGrant();
}

Grant& Ledger::Add(Grant grant) {
  ++added_;
  grant.info.set_grant(NextId());
  return Restore(std::move(grant));
}

Grant& Ledger::Restore(Grant grant) {
  const uint64_t id = grant.info.grant();
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
  Forget(grant.record);
  Count(in_use_, grant.info, -1);
  charges_.Remove(grant.info, grant.map_bytes);
  return grant;
}

Grant Ledger::Retire(uint64_t id, v1::Reason why) {
  Grant grant = TakeOut(id);
  grant.info.set_ended(why);
  if (grant.record.has_value()) {
    Write(grant.record, RecordOf(grant, daemon::GrantRecord::STATE_ENDED));
  }
  Count(retired_of_, grant.info, 1);
  retired_.emplace(id, Retired{grant.info, grant.map_bytes,
                               std::exchange(grant.record, std::nullopt)});
  // What is returned is the grant as it was.
  grant.info.clear_ended();
  return grant;
}

uint64_t Ledger::AddRetired(v1::GrantInfo like, Gates::Gate gate) {
  like.set_grant(NextId());
  charges_.Add(like, 0);
  Count(in_use_, like, 1);
  Count(retired_of_, like, 1);
  Grant grant;
  grant.info = like;
  grant.instance.gate = gate;
  daemon::GrantRecord record =
      RecordOf(grant, daemon::GrantRecord::STATE_ENDED);
  // Of the objects that the grant had, the maps alone are meant.
  record.set_maps(1);
  std::optional<LedgerFile::Place> place;
  Write(place, record);
  const uint64_t id = like.grant();
  retired_.emplace(id, Retired{std::move(like), 0, place});
  return id;
}

void Ledger::RestoreRetired(v1::GrantInfo info, uint64_t map_bytes,
                            std::optional<LedgerFile::Place> record) {
  charges_.Add(info, map_bytes);
  Count(in_use_, info, 1);
  Count(retired_of_, info, 1);
  const uint64_t id = info.grant();
  retired_.emplace(id, Retired{std::move(info), map_bytes, record});
}

bool Ledger::Commit(Grant& grant) {
  daemon::GrantRecord record = RecordOf(grant, daemon::GrantRecord::STATE_LIVE);
  Write(grant.record, record);
  if (!grant.record.has_value() && file_ != nullptr) {
    // Too large: what is for show is left out, and the answer, without which it
    // is kept if it is sent in time.
    record.clear_reply();
    record.mutable_info()->clear_parameter();
    Write(grant.record, record);
  }
  return grant.record.has_value();
}

void Ledger::MarkSent(Grant& grant) {
  grant.reply.reset();
  if (grant.record.has_value()) file_->Mark(*grant.record);
}

std::optional<LedgerFile::Place> Ledger::CommitShared(
    const v1::GrantInfo& like, const std::string& identity,
    const Instance& instance) {
  Grant shared;
  shared.info = like;
  shared.instance.gate = instance.gate;
  daemon::GrantRecord record =
      RecordOf(shared, daemon::GrantRecord::STATE_SHARED);
  record.set_identity(identity);
  record.set_maps(static_cast<uint32_t>(instance.session_maps.size()));
  for (const uint32_t id : instance.session_map_ids) record.add_fd_id(id);
  std::optional<LedgerFile::Place> place;
  Write(place, record);
  return place;
}

void Ledger::Forget(std::optional<LedgerFile::Place>& record) {
  if (record.has_value()) file_->Remove(*record);
  record.reset();
}

void Ledger::Write(std::optional<LedgerFile::Place>& place,
                   const daemon::GrantRecord& grant) {
  if (file_ == nullptr) return;
  daemon::Record record;
  *record.mutable_grant() = grant;
  const auto written = file_->Replace(place, record.SerializeAsString());
  // What can no longer be told as it is must not be told as it was.
  if (!written.has_value() && place.has_value()) file_->Remove(*place);
  place = written;
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
  Forget(found->second.record);
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
