#include "daemon/broker/resumption.h"

#include <fstream>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "daemon/stored_names.h"
#include "proto/wire/limits.h"
#include "spdlog/spdlog.h"

namespace bpfgrant::broker {
namespace {

// What the kernel calls the program or map behind `fd`; 0: it is neither.
uint32_t IdOf(const UniqueFd& fd) {
  std::ifstream lines(absl::StrCat("/proc/self/fdinfo/", fd.get()));
  std::string word;
  while (lines >> word) {
    if (word != "map_id:" && word != "prog_id:") continue;
    uint32_t id = 0;
    lines >> id;
    return id;
  }
  return 0;
}

// `fds` in the order of `ids`, with nothing where an id is 0. False: one is not
// there.
bool PutInOrder(std::vector<UniqueFd> fds,
                const google::protobuf::RepeatedField<uint32_t>& ids,
                std::vector<UniqueFd>& ordered) {
  absl::flat_hash_map<uint32_t, UniqueFd> by_id;
  for (UniqueFd& fd : fds) {
    const uint32_t id = IdOf(fd);
    by_id.emplace(id, std::move(fd));
  }
  for (const uint32_t id : ids) {
    const auto found = by_id.find(id);
    if (id != 0 && found == by_id.end()) return false;
    ordered.push_back(id == 0 ? UniqueFd() : std::move(found->second));
    if (id != 0) by_id.erase(found);
  }
  return true;
}

Gates::Gate GateOf(const daemon::GrantRecord& record) {
  return {record.gate_slot(), record.gate_nonce()};
}

}  // namespace

void Resumption::ReadRecords() {
  for (LedgerFile::Found& found : parts_.keeping.TakeRecords()) {
    daemon::Record record;
    if (!record.ParseFromString(found.bytes) ||
        record.body_case() == daemon::Record::BODY_NOT_SET ||
        record.grant().gate_slot() >= parts_.gates.slots()) {
      parts_.keeping.file()->Remove(found.place);
      continue;
    }
    // Of two for the same, one was being replaced by the other.
    if (record.has_session()) {
      const uint64_t id = record.session().session();
      uint64_t& number = session_numbers_[id];
      if (found.number < number) {
        parts_.keeping.file()->Remove(found.place);
        continue;
      }
      if (number != 0) {
        parts_.keeping.file()->Remove(sessions_found_[id].first);
      }
      number = found.number;
      sessions_found_[id] = {found.place, std::move(*record.mutable_session())};
      continue;
    }
    const bool shared =
        record.grant().state() == daemon::GrantRecord::STATE_SHARED;
    if (record.grant().maps() > 0) {
      shared_ids_.insert(record.grant().info().map_id().begin(),
                         record.grant().info().map_id().end());
    }
    const auto key = std::make_pair(
        shared ? record.grant().gate_nonce() : record.grant().info().grant(),
        shared);
    Found grant{found.place, found.number, found.marked,
                std::move(*record.mutable_grant())};
    const auto [known, added] = grants_found_.try_emplace(key, grant);
    if (added) continue;
    if (known->second.number < grant.number) std::swap(known->second, grant);
    parts_.keeping.file()->Remove(grant.place);
  }
}

void Resumption::ResumeSession(const daemon::SessionRecord& record,
                               LedgerFile::Place place) {
  const uint64_t id = record.session();
  std::vector<UniqueFd> sockets = parts_.keeping.TakeFound(
      daemon::StoredName(daemon::kStoredSession, {id}));
  std::vector<UniqueFd> pidfds =
      parts_.keeping.TakeFound(daemon::StoredName(daemon::kStoredClient, {id}));
  Session* session = nullptr;
  if (sockets.size() == 1) {
    session = parts_.acceptor.Restore(
        record, place, std::move(sockets[0]),
        pidfds.empty() ? UniqueFd() : std::move(pidfds[0]));
  }
  if (session != nullptr) {
    ++sessions_;
    return;
  }
  Session gone;
  gone.id = id;
  gone.record = place;
  parts_.keeping.Forget(gone);
}

bool Resumption::TakeInstance(const daemon::GrantRecord& record, Grant& grant) {
  const bool unsent = record.has_reply();
  if (record.info().claimed() && !unsent) return true;
  if (!PutInOrder(parts_.keeping.TakeFound(daemon::StoredName(
                      daemon::kStoredInstance,
                      {record.gate_slot(), record.gate_nonce()})),
                  record.fd_id(), grant.instance.fds)) {
    return false;
  }
  for (const uint32_t handle : record.handle()) {
    if (size_t{handle} + 1 >= grant.instance.fds.size()) return false;
    grant.handles.push_back(static_cast<int>(handle));
  }
  if (grant.instance.fds.empty()) return false;
  if (unsent) {
    grant.reply = record.reply();
    return true;
  }
  // One that waits for its Claim: it needs what the loader had of it, and the
  // program as it was.
  const std::string& name = record.info().program();
  const Program* program = parts_.granting.snapshot().Find(name);
  if (program == nullptr || grant.instance.kept != KeptByLoader::kNothing ||
      program->description().digest() != record.info().digest() ||
      static_cast<size_t>(program->description().handle_size()) + 1 !=
          grant.instance.fds.size()) {
    return false;
  }
  grant.program = std::shared_ptr<const Program>(
      parts_.granting.shared_snapshot(), program);
  return true;
}

void Resumption::TellLoader(const daemon::GrantRecord& record, bool live) {
  daemon::ResumeRequest& request = *for_loader_.mutable_resume();
  daemon::ResumeRequest::Instance& instance = *request.add_instance();
  instance.set_gate_slot(record.gate_slot());
  instance.set_gate_nonce(record.gate_nonce());
  *instance.mutable_program_id() = record.info().program_id();
  instance.set_session_maps(record.maps() > 0);
  for (const uint32_t id : record.info().map_id()) {
    // Those of a session count for themselves.
    if (instance.session_maps() || !shared_ids_.contains(id)) {
      instance.add_map_id(id);
    }
  }
  instance.set_live(live);
  instance.set_program(record.info().program());
  if (request.instance_size() == kMaxResumedAtOnce ||
      request.ByteSizeLong() > kMaxFrameBytes / 2) {
    SendToLoader(false);
  }
}

void Resumption::SendToLoader(bool last) {
  for_loader_.mutable_resume()->set_last(last);
  parts_.loader.Send(std::exchange(for_loader_, daemon::LoaderRequest()), {},
                     kLoadDeadline,
                     [](const absl::StatusOr<LoaderClient::Reply>& reply) {
                       if (reply.ok()) return;
                       spdlog::error("what was loaded before this start: {}",
                                     reply.status().ToString());
                     });
}

void Resumption::EndGrant(Found found, v1::Reason why) {
  TellLoader(found.record, /*live=*/false);
  v1::GrantInfo& info = *found.record.mutable_info();
  if (found.record.state() == daemon::GrantRecord::STATE_LIVE &&
      found.record.on_record()) {
    parts_.audit.GrantEnded(info, why);
  }
  if (info.ended() == v1::REASON_UNSPECIFIED) info.set_ended(why);
  const bool maps = found.record.maps() > 0;
  if (!parts_.remains.looks()) {
    parts_.keeping.file()->Remove(found.place);
    return;
  }
  found.record.set_state(daemon::GrantRecord::STATE_ENDED);
  found.record.clear_reply();
  daemon::Record record;
  *record.mutable_grant() = found.record;
  const auto place =
      parts_.keeping.file()->Replace(found.place, record.SerializeAsString());
  const uint64_t id = info.grant();
  parts_.ledger.RestoreRetired(std::move(info), found.record.map_bytes(),
                               place);
  parts_.remains.Add(GateOf(found.record), maps, id);
}

void Resumption::ResumeGrant(Found found) {
  const daemon::GrantRecord& record = found.record;
  Session* session = parts_.acceptor.FindSession(record.info().session());
  if (record.state() != daemon::GrantRecord::STATE_LIVE || session == nullptr) {
    EndGrant(std::move(found), v1::REASON_SESSION_ENDED);
    return;
  }
  // Sent: the mark is later than the answer in the record.
  if (found.marked) found.record.clear_reply();
  const Gates::Gate gate = GateOf(record);
  Grant grant;
  grant.info = record.info();
  grant.instance.gate = gate;
  grant.instance.kept = static_cast<KeptByLoader>(record.kept());
  grant.instance.fd_ids = {record.fd_id().begin(), record.fd_id().end()};
  grant.swappable = {record.swappable().begin(), record.swappable().end()};
  grant.map_bytes = record.map_bytes();
  grant.on_record = record.on_record();
  grant.request = record.request();
  grant.rotated_by = record.rotated_by();
  grant.swaps = record.swaps();
  grant.loaded = true;
  grant.record = found.place;
  const bool open = parts_.gates.IsOpen(gate);
  if (open != record.info().claimed() || !TakeInstance(record, grant)) {
    v1::Event event;
    event.set_type(v1::Event::TYPE_GRANT_ENDED);
    event.set_reason(v1::REASON_NOT_KEPT);
    event.set_at_unix_ms(UnixMs());
    *event.mutable_grant() = record.info();
    spdlog::warn("grant {} of '{}' is not kept", record.info().grant(),
                 record.info().program());
    EndGrant(std::move(found), v1::REASON_NOT_KEPT);
    session->notify(event);
    return;
  }
  taken_.push_back(gate);
  if (open) {
    parts_.gates.SetTraced(gate, false);
    // It was on record, and perhaps not yet done.
    if (grant.rotated_by != 0 || grant.swaps != 0) {
      parts_.gates.Swap(gate, parts_.gates.Swaps(gate) ^ grant.swaps);
    }
  }
  TellLoader(record, /*live=*/true);
  parts_.granting.Restore(*session, std::move(grant));
  ++grants_;
}

void Resumption::ResumeShared(Found found) {
  const daemon::GrantRecord& record = found.record;
  Session* session = parts_.acceptor.FindSession(record.info().session());
  std::vector<UniqueFd> maps;
  const bool kept = PutInOrder(parts_.keeping.TakeFound(daemon::StoredName(
                                   daemon::kStoredShared,
                                   {record.gate_slot(), record.gate_nonce()})),
                               record.fd_id(), maps) &&
                    maps.size() == record.maps() && session != nullptr;
  if (!kept) {
    // It counts as a grant of its own from now on.
    found.record.mutable_info()->set_grant(parts_.keeping.file()->NextGrant());
    EndGrant(std::move(found), v1::REASON_SESSION_ENDED);
    return;
  }
  TellLoader(record, /*live=*/true);
  Session::Shared& shared = session->shared[record.identity()];
  shared.maps = std::move(maps);
  shared.gate = GateOf(record);
  shared.holder = record.info();
  shared.record = found.place;
}

void Resumption::Run() {
  // Without records nothing goes on of what the loader may have found.
  ReadRecords();
  for (auto& [id, found] : sessions_found_) {
    ResumeSession(found.second, found.first);
  }
  for (auto& [key, found] : grants_found_) {
    if (key.second) {
      ResumeShared(std::move(found));
    } else {
      ResumeGrant(std::move(found));
    }
  }
  parts_.gates.Restore(taken_);
  SendToLoader(/*last=*/true);
  parts_.keeping.ForgetTheRest();
  if (parts_.keeping.keeps() && parts_.keeping.file()->restarts() > 0) {
    spdlog::info("resumed {} sessions with {} grants", sessions_, grants_);
  }
}

}  // namespace bpfgrant::broker
