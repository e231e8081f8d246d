#include "daemon/broker/accept.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "daemon/broker/location.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"
#include "spdlog/spdlog.h"

namespace bpfgrant::broker {
namespace {

// Connections taken before those that are there get their turn.
constexpr int kAcceptsPerTurn = 16;
// A user whose share of unread fds is used up has its connections looked at
// again at most this often: the looking costs the daemon a system call each.
constexpr std::chrono::milliseconds kRecountEvery{20};

}  // namespace

Acceptor::Acceptor(Parts parts, UniqueFd listener)
    : parts_(std::move(parts)),
      listener_(std::move(listener)),
      reserve_(open("/dev/null", O_RDONLY | O_CLOEXEC)),
      buffer_(kMaxFrameBytes),
      connection_parts_{parts_.loop,
                        parts_.service,
                        parts_.granting,
                        parts_.watchers,
                        unread_fds_,
                        parts_.keeping,
                        parts_.mitigations,
                        absl::MakeSpan(buffer_),
                        [this](uint64_t id) { return Find(id); },
                        [this](uint64_t id) { OnOver(id); },
                        [this](Connection& connection) {
                          by_token_.emplace(connection.session().token,
                                            connection.session().id);
                        },
                        [this](uid_t uid) { Recount(uid); },
                        [this](UniqueFd socket, uid_t uid, size_t unread) {
                          Linger(std::move(socket), uid, unread);
                        }} {}

Acceptor::~Acceptor() = default;

void Acceptor::Start() {
  // Inherited by each connection from its first moment: a frame that came
  // between accept and setsockopt would bear no credentials.
  const int on = 1;
  setsockopt(listener_.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
  source_ = parts_.loop.Io(listener_.get(), EPOLLIN,
                           [this](uint32_t) { OnReadable(); });
}

void Acceptor::Stop() {
  source_ = EventLoop::Source();
  handshake_source_ = EventLoop::Source();
  std::vector<Connection*> all;
  for (const auto& [id, connection] : connections_) {
    all.push_back(connection.get());
  }
  for (Connection* connection : all) {
    connection->SayGoodbye();
    connection->End(v1::REASON_DAEMON_STOPPED, "the daemon stops");
  }
  leftovers_.clear();
}

Connection* Acceptor::Find(uint64_t id) {
  const auto found = connections_.find(id);
  return found == connections_.end() ? nullptr : found->second.get();
}

Session* Acceptor::FindSession(uint64_t id) {
  Connection* connection = Find(id);
  return connection == nullptr ? nullptr : &connection->session();
}

Session* Acceptor::FindByToken(std::string_view token) {
  const auto found =
      by_token_.find(absl::string_view(token.data(), token.size()));
  if (found == by_token_.end()) return nullptr;
  return FindSession(found->second);
}

void Acceptor::OnReadable() {
  for (int i = 0; i < kAcceptsPerTurn && AcceptOne(); ++i) {
  }
}

bool Acceptor::AcceptOne() {
  UniqueFd socket(
      accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (socket.valid()) {
    Admit(std::move(socket));
    return true;
  }
  if (errno == EMFILE || errno == ENFILE) {
    // Left in the queue it would keep us spinning: take it and drop it.
    reserve_.reset();
    UniqueFd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    reserve_ = UniqueFd(open("/dev/null", O_RDONLY | O_CLOEXEC));
    spdlog::warn("out of fds: a connection was dropped");
    return true;
  }
  return errno == ECONNABORTED || errno == EINTR;
}

void Acceptor::TurnAway(const UniqueFd& socket, const absl::Status& status) {
  v1::ServerFrame frame;
  *frame.mutable_refusal() = RefusalOf(status);
  parts_.service.CountRefusal(frame.refusal().reason());
  // A courtesy: whether it arrives makes no difference to us.
  SendPacket(socket.get(), frame.SerializeAsString(), {}).IgnoreError();
}

void Acceptor::Admit(UniqueFd socket) {
  const int on = 1;
  if (setsockopt(socket.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0) {
    return;
  }
  const absl::StatusOr<uid_t> uid = PeerUid(socket.get());
  if (!uid.ok()) {
    TurnAway(socket, uid.status());
    return;
  }
  size_t& of_user = of_user_[*uid];
  // The last places are root's: an administrator can get in when others have
  // filled the house.
  const size_t places =
      *uid == 0 ? parts_.limits.sessions
                : parts_.limits.sessions - parts_.limits.sessions / 64;
  if (parts_.mitigations.quotas &&
      (connections_.size() + leftovers_.size() >= places ||
       of_user >= parts_.limits.sessions_per_user)) {
    const size_t held = of_user;
    if (held == 0) of_user_.erase(*uid);
    TurnAway(socket,
             Refuse(v1::REASON_TOO_MANY_SESSIONS,
                    absl::StrCat("uid ", *uid, " has ", held, " of ",
                                 connections_.size() + leftovers_.size(),
                                 " sessions")));
    return;
  }
  absl::StatusOr<Peer> peer =
      Identify(socket.get(), parts_.identify, parts_.mitigations);
  if (!peer.ok()) {
    if (of_user == 0) of_user_.erase(*uid);
    TurnAway(socket, peer.status());
    return;
  }
  used_nonce_ = peer->needs_nonce;
  LedgerFile* file = parts_.keeping.file();
  const uint64_t id = file == nullptr ? next_id_++ : file->NextSession();
  Enter(id, std::move(socket), *std::move(peer))->Start();
  if (parts_.mitigations.handshake_deadline) {
    handshakes_.emplace_back(
        std::chrono::steady_clock::now() + parts_.limits.handshake, id);
    WatchHandshakes();
  }
}

Connection* Acceptor::Enter(uint64_t id, UniqueFd socket, Peer peer) {
  ++of_user_[peer.subject.uid];
  const bool administrator = IsAdministrator(peer.subject);
  auto connection = std::make_unique<Connection>(
      connection_parts_, id, std::move(socket), std::move(peer), administrator);
  Connection* entered = connection.get();
  connections_.emplace(id, std::move(connection));
  return entered;
}

Session* Acceptor::Restore(const daemon::SessionRecord& record,
                           LedgerFile::Place place, UniqueFd socket,
                           UniqueFd pidfd) {
  absl::StatusOr<Peer> peer = IdentifyAgain(
      socket.get(), std::move(pidfd), parts_.identify, parts_.mitigations);
  if (!peer.ok()) return nullptr;
  if (record.has_cgroup()) {
    peer->subject.location = LocateAgain(record.cgroup(), parts_.mitigations);
  }
  Connection* connection =
      Enter(record.session(), std::move(socket), *std::move(peer));
  connection->Resume(record, place, parts_.keeping.file()->restarts());
  if (Find(record.session()) == nullptr) return nullptr;
  return &connection->session();
}

bool Acceptor::IsAdministrator(const policy::Subject& subject) const {
  if (subject.uid == 0) return true;
  if (!parts_.administrator_group.has_value()) return false;
  const gid_t group = *parts_.administrator_group;
  return subject.gid == group ||
         std::find(subject.groups.begin(), subject.groups.end(), group) !=
             subject.groups.end();
}

void Acceptor::WatchHandshakes() {
  // Those that have said Hello, or are gone, need no watching.
  while (!handshakes_.empty()) {
    const Connection* next = Find(handshakes_.front().second);
    if (next != nullptr && !next->open()) break;
    handshakes_.pop_front();
  }
  if (handshakes_.empty() || handshake_source_.active()) return;
  const auto after = std::max(
      std::chrono::ceil<std::chrono::milliseconds>(
          handshakes_.front().first - std::chrono::steady_clock::now()),
      std::chrono::milliseconds(0));
  handshake_source_ =
      parts_.loop.Timer(after, [this] { OnHandshakeDeadline(); });
}

void Acceptor::OnHandshakeDeadline() {
  handshake_source_ = EventLoop::Source();
  const auto now = std::chrono::steady_clock::now();
  while (!handshakes_.empty() && handshakes_.front().first <= now) {
    Connection* late = Find(handshakes_.front().second);
    handshakes_.pop_front();
    if (late != nullptr && !late->open()) {
      parts_.service.CountRefusal(v1::REASON_TIMED_OUT);
      late->End(v1::REASON_TIMED_OUT, "no Hello came");
    }
  }
  WatchHandshakes();
}

void Acceptor::OnOver(uint64_t id) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  Session& session = found->second->session();
  parts_.keeping.Forget(session);
  if (!session.token.empty()) by_token_.erase(session.token);
  Leave(session.peer.subject.uid);
  over_.push_back(std::move(found->second));
  connections_.erase(found);
  // It is on the stack right now.
  if (over_.size() == 1) {
    parts_.loop.Post([this] { over_.clear(); });
  }
}

void Acceptor::Leave(uid_t uid) {
  const auto of_user = of_user_.find(uid);
  if (--of_user->second == 0) of_user_.erase(of_user);
}

void Acceptor::Linger(UniqueFd socket, uid_t uid, size_t unread) {
  // The peer sees the end behind what it has not read yet.
  shutdown(socket.get(), SHUT_RDWR);
  ++of_user_[uid];
  const uint64_t id = next_leftover_++;
  Leftover& leftover = leftovers_[id];
  leftover = {std::move(socket), uid, unread, {}};
  // Edge-triggered: it is writable and hung up all the while; each packet read
  // wakes us (sock_wfree).
  leftover.source = parts_.loop.Io(leftover.socket.get(),
                                   static_cast<uint32_t>(EPOLLOUT) | EPOLLET,
                                   [this, id](uint32_t) { OnLeftover(id); });
}

void Acceptor::OnLeftover(uint64_t id) {
  const auto found = leftovers_.find(id);
  if (!AllRead(found->second.socket.get())) return;
  unread_fds_.Remove(found->second.uid, found->second.unread);
  Leave(found->second.uid);
  leftovers_.erase(found);
}

void Acceptor::Recount(uid_t uid) {
  const auto now = std::chrono::steady_clock::now();
  auto& last = recounted_[uid];
  if (now - last < kRecountEvery) return;
  last = now;
  for (const auto& [id, connection] : connections_) {
    if (connection->session().peer.subject.uid == uid) connection->Recount();
  }
}

}  // namespace bpfgrant::broker
