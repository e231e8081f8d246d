#include "daemon/broker/keeping.h"

#include <poll.h>
#include <sys/epoll.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/stored_names.h"
#include "proto/wire/message_socket.h"
#include "spdlog/spdlog.h"

namespace bpfgrant::broker {
namespace {

// Allowances that are remembered before those that have rested are looked for.
constexpr size_t kManyAllowances = 1024;

std::string NameOf(std::string_view word, Gates::Gate gate) {
  return daemon::StoredName(word, {gate.slot, gate.nonce});
}

std::string BytesOf(const Session& session) {
  daemon::Record record;
  daemon::SessionRecord& kept = *record.mutable_session();
  kept.set_session(session.id);
  kept.set_token(session.token);
  if (session.peer.subject.location.has_value()) {
    kept.set_cgroup(session.peer.subject.location->cgroup);
  }
  kept.set_watches(session.watch != 0);
  kept.set_traced(session.traced);
  return record.SerializeAsString();
}

}  // namespace

Keeping::Keeping(EventLoop& loop, daemon::FdStore store,
                 daemon::StoredFds found, bool limits_users)
    : loop_(loop),
      limits_users_(limits_users),
      store_(std::move(store)),
      found_(std::move(found)) {
  if (!store_.keeps()) {
    why_not_ = "no service manager with a store of fds started bpfgrantd";
    return;
  }
  for (const auto& [name, fd] : found_) store_.Adopt(name, 1);
  std::vector<UniqueFd> files = TakeFound(daemon::kStoredLedger);
  if (!files.empty()) {
    absl::StatusOr<LedgerFile> file = LedgerFile::Open(std::move(files[0]));
    if (file.ok()) {
      file_.emplace(*std::move(file));
      return;
    }
    spdlog::error("what was before this start is not kept: {}",
                  std::string(file.status().message()));
    store_.Remove(daemon::kStoredLedger);
  }
  absl::StatusOr<LedgerFile> file = LedgerFile::Create();
  const int number = file.ok() ? file->fd() : -1;
  if (!file.ok() ||
      !store_.Put(daemon::kStoredLedger, absl::MakeSpan(&number, 1))) {
    why_not_ = absl::StrCat("the ledger has no file: ",
                            std::string(file.status().message()));
    return;
  }
  file_.emplace(*std::move(file));
  Watch();
}

std::vector<LedgerFile::Found> Keeping::TakeRecords() {
  return keeps() ? file_->Read() : std::vector<LedgerFile::Found>();
}

std::vector<UniqueFd> Keeping::TakeFound(const std::string& name) {
  std::vector<UniqueFd> fds;
  const auto [begin, end] = found_.equal_range(name);
  for (auto each = begin; each != end; ++each) {
    fds.push_back(std::move(each->second));
  }
  found_.erase(begin, end);
  return fds;
}

void Keeping::ForgetTheRest() {
  for (const auto& [name, fd] : found_) store_.Remove(name);
  found_.clear();
  Watch();
}

void Keeping::Settle(std::chrono::milliseconds patience) {
  const auto until = std::chrono::steady_clock::now() + patience;
  for (;;) {
    store_.Flush();
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(
        until - std::chrono::steady_clock::now());
    if (store_.queued() == 0 || left.count() <= 0) return;
    pollfd writable{store_.fd(), POLLOUT, 0};
    poll(&writable, 1, static_cast<int>(left.count()));
  }
}

bool Keeping::Keep(Session& session, int socket) {
  if (!keeps()) return false;
  if (session.record.has_value()) return true;
  const auto now = Allowance::Clock::now();
  if (allowances_.size() >= kManyAllowances) {
    absl::erase_if(allowances_,
                   [now](auto& entry) { return entry.second.IsFull(now); });
  }
  Allowance& allowance = allowances_
                             .try_emplace(session.peer.subject.uid, kKeptAtOnce,
                                          kKeptPerSecond, now)
                             .first->second;
  if (limits_users_ && !allowance.Take(1, now)) return false;
  const std::string name =
      daemon::StoredName(daemon::kStoredSession, {session.id});
  if (!store_.Put(name, absl::MakeSpan(&socket, 1))) return false;
  if (session.peer.needs_nonce) {
    // This kernel does not name it once more.
    const int pidfd = session.peer.pidfd.get();
    store_.Put(daemon::StoredName(daemon::kStoredClient, {session.id}),
               absl::MakeSpan(&pidfd, 1));
  }
  session.record = file_->Add(BytesOf(session));
  if (!session.record.has_value()) Forget(session);
  Watch();
  return session.record.has_value();
}

void Keeping::Update(Session& session) {
  if (!session.record.has_value()) return;
  const auto written = file_->Replace(session.record, BytesOf(session));
  if (written.has_value()) session.record = written;
}

void Keeping::Forget(Session& session) {
  if (!keeps()) return;
  Remove(daemon::StoredName(daemon::kStoredSession, {session.id}));
  Remove(daemon::StoredName(daemon::kStoredClient, {session.id}));
  if (session.record.has_value()) file_->Remove(*session.record);
  session.record.reset();
}

void Keeping::Keep(const Instance& instance) {
  Put(NameOf(daemon::kStoredInstance, instance.gate), instance.fds);
}

void Keeping::KeepSharedMaps(const Instance& instance) {
  Put(NameOf(daemon::kStoredShared, instance.gate), instance.session_maps);
}

void Keeping::ForgetInstance(Gates::Gate gate) {
  Remove(NameOf(daemon::kStoredInstance, gate));
}

void Keeping::ForgetSharedMaps(Gates::Gate gate) {
  Remove(NameOf(daemon::kStoredShared, gate));
}

void Keeping::Put(const std::string& name, const std::vector<UniqueFd>& fds) {
  if (!keeps()) return;
  std::vector<int> numbers;
  for (const UniqueFd& fd : fds) {
    if (fd.valid()) numbers.push_back(fd.get());
  }
  if (numbers.empty()) return;
  store_.Put(name, numbers);
  Watch();
}

void Keeping::Remove(const std::string& name) {
  store_.Remove(name);
  Watch();
}

void Keeping::Watch() {
  if (store_.queued() == 0 || writable_.active()) return;
  writable_ = loop_.Io(store_.fd(), EPOLLOUT, [this](uint32_t) {
    store_.Flush();
    if (store_.queued() == 0) writable_ = EventLoop::Source();
  });
}

}  // namespace bpfgrant::broker
