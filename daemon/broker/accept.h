// Accepts on broker.sock, and keeps the connections: how many there may be, how
// long they may take to say Hello, and which session has which token.

#ifndef DAEMON_BROKER_ACCEPT_H_
#define DAEMON_BROKER_ACCEPT_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "daemon/broker/connection.h"
#include "daemon/broker/event_loop.h"
#include "daemon/broker/identify.h"
#include "daemon/broker/service.h"
#include "daemon/broker/unread_fds.h"

namespace bpfgrant::broker {

struct AcceptLimits {
  size_t sessions = 0;
  size_t sessions_per_user = 0;
  std::chrono::milliseconds handshake{0};
};

class Acceptor {
 public:
  struct Parts {
    EventLoop& loop;
    Service& service;
    Granting& granting;
    Watchers& watchers;
    Keeping& keeping;
    const daemon::Mitigations& mitigations;
    AcceptLimits limits;
    IdentifyBy identify;
    std::optional<gid_t> administrator_group;
  };

  // `listener` is bound and listens. Start begins to accept.
  Acceptor(Parts parts, UniqueFd listener);
  ~Acceptor();

  void Start();
  // Accepts nobody any more and ends all sessions, telling each.
  void Stop();

  // Takes up a session that an earlier broker had opened and kept under
  // `record`. nullptr: its process is gone, or it cannot be told any more who
  // it is. Before Start.
  Session* Restore(const daemon::SessionRecord& record, LedgerFile::Place place,
                   UniqueFd socket, UniqueFd pidfd);

  // nullptr: no such session (any more).
  Connection* Find(uint64_t id);
  // Its session; nullptr: likewise.
  Session* FindSession(uint64_t id);
  // The open session with that token; nullptr: none.
  Session* FindByToken(std::string_view token);
  size_t size() const { return connections_.size(); }
  // Whether a Hello was seen that needed the nonce.
  bool used_nonce() const { return used_nonce_; }
  // Root, and who is in the administrators' group.
  bool IsAdministrator(const policy::Subject& subject) const;

 private:
  void OnReadable();
  bool AcceptOne();
  void Admit(UniqueFd socket);
  void TurnAway(const UniqueFd& socket, const absl::Status& status);
  Connection* Enter(uint64_t id, UniqueFd socket, Peer peer);
  void WatchHandshakes();
  void OnHandshakeDeadline();
  void OnOver(uint64_t id);
  void Recount(uid_t uid);
  void Linger(UniqueFd socket, uid_t uid, size_t unread);
  void OnLeftover(uint64_t id);
  void Leave(uid_t uid);

  // What is left of a session that ended before its peer had read all its fds:
  // they are in flight until the peer reads them or closes its end, so they
  // stay on its user's account, and so does its place.
  struct Leftover {
    UniqueFd socket;
    uid_t uid;
    size_t unread;
    EventLoop::Source source;
  };

  Parts parts_;
  UniqueFd listener_;
  // Given up for a moment to accept and close a peer when there is no other fd.
  UniqueFd reserve_;
  std::vector<char> buffer_;
  UnreadFds unread_fds_;
  Connection::Parts connection_parts_;
  EventLoop::Source source_;
  EventLoop::Source handshake_source_;
  absl::flat_hash_map<uint64_t, std::unique_ptr<Connection>> connections_;
  absl::flat_hash_map<std::string, uint64_t> by_token_;
  absl::flat_hash_map<uid_t, size_t> of_user_;
  absl::flat_hash_map<uid_t, std::chrono::steady_clock::time_point> recounted_;
  // In the order of their deadlines, which are all equally long.
  std::deque<std::pair<std::chrono::steady_clock::time_point, uint64_t>>
      handshakes_;
  std::vector<std::unique_ptr<Connection>> over_;
  absl::flat_hash_map<uint64_t, Leftover> leftovers_;
  uint64_t next_id_ = 1;
  uint64_t next_leftover_ = 1;
  bool used_nonce_ = false;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_ACCEPT_H_
