// One peer's connection to broker.sock: frames in, frames out, and whose they
// are.
//
// It checks that each frame comes from the process that connected, that frames
// are in order, and that the peer reads what it is sent. What the calls mean is
// the service's business.

#ifndef DAEMON_BROKER_CONNECTION_H_
#define DAEMON_BROKER_CONNECTION_H_

#include <sys/epoll.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/types/span.h"
#include "bpfgrant/daemon/record.pb.h"
#include "bpfgrant/v1/broker.pb.h"
#include "daemon/broker/event_loop.h"
#include "daemon/broker/keeping.h"
#include "daemon/broker/service.h"
#include "daemon/broker/session.h"
#include "daemon/broker/unread_fds.h"
#include "daemon/mitigations.h"
#include "proto/wire/message_socket.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::broker {

class Connection {
 public:
  struct Parts {
    EventLoop& loop;
    Service& service;
    Granting& granting;
    Watchers& watchers;
    UnreadFds& unread_fds;
    Keeping& keeping;
    const daemon::Mitigations& mitigations;
    // One buffer for all: a frame is done with before the next one is read.
    absl::Span<char> buffer;
    // nullptr once that connection is over.
    std::function<Connection*(uint64_t)> find;
    // The connection is over and can be destroyed, but not from within this.
    std::function<void(uint64_t)> over;
    // The Hello was answered: the session has a token.
    std::function<void(Connection&)> opened;
    // Takes stock of what this user's other connections have read by now.
    std::function<void(uid_t)> recount;
    // Takes over the socket of an ended session whose peer has not read that
    // many fds yet.
    std::function<void(UniqueFd, uid_t, size_t)> linger;
  };

  Connection(const Parts& parts, uint64_t id, UniqueFd socket, Peer peer,
             bool administrator);
  ~Connection();

  // Begins to read; the challenge, where the peer needs one, goes out first.
  void Start();
  // Instead of Start, for a session that an earlier broker had opened and
  // kept: tells the peer, and takes nothing from it until it has heard that.
  void Resume(const daemon::SessionRecord& record, LedgerFile::Place place,
              uint64_t restart);
  // Ends the session and all it holds. `why` is for the log.
  void End(v1::Reason reason, std::string_view why);
  bool ended() const { return state_ == State::kEnded; }
  // Whether the Hello was answered.
  bool open() const {
    return state_ == State::kOpen || state_ == State::kResuming;
  }

  Session& session() { return session_; }
  // Sees what the peer has read, and takes it off the account.
  void Recount();
  // Tells the peer, if it can be told at once, that the daemon goes.
  void SayGoodbye();

 private:
  enum class State { kHello, kIdentify, kResuming, kOpen, kEnded };
  struct Outgoing {
    std::string bytes;
    std::vector<UniqueFd> fds;
    uint64_t grant;  // whose fds these are; 0: none
    uint64_t request;
  };

  void OnEvents(uint32_t events);
  void OnFrame(Packet packet);
  bool IsFromPeer(const Packet& packet) const;
  void OnHello(const v1::ClientFrame& frame);
  void OnIdentify(const v1::ClientFrame& frame);
  void OnResume(const v1::ClientFrame& frame);
  // Begins to watch socket and process; false: it has ended.
  bool Watched();
  void Open();
  void Dispatch(const v1::ClientFrame& frame, std::vector<UniqueFd> fds);
  void DispatchAcquire(const v1::ClientFrame& frame, std::vector<UniqueFd> fds);
  void Watch(uint64_t request);
  void Trace(uint64_t request, const v1::TraceRequest& trace);

  // Each of these ends the request with that id.
  template <typename Reply>
  void Finish(uint64_t request, const absl::StatusOr<Reply>& reply,
              Reply* (v1::ServerFrame::*field)());
  // For calls whose answer comes later, when this connection may be gone.
  template <typename Reply>
  Answer<Reply> Later(uint64_t request, Reply* (v1::ServerFrame::*field)());
  Answer<Delivered> LaterDelivered(uint64_t request);
  // `read` is when the request was.
  void FinishDelivered(uint64_t request,
                       std::chrono::steady_clock::time_point read,
                       absl::StatusOr<Delivered> delivered);
  void Refused(uint64_t request, const absl::Status& status);

  void Send(uint64_t request, const v1::ServerFrame& frame,
            std::vector<UniqueFd> fds = {}, uint64_t grant = 0);
  // Whether everything with fds has been read that was sent here.
  bool MayCarryFds();
  // Whether so many more may be in flight to this user.
  bool HasShareFor(size_t fds);
  absl::Status TooManyUnread(size_t unread) const;
  // False if the packet has to wait.
  bool TrySend(Outgoing& packet);
  void Flush();
  void UpdateEvents();

  Parts parts_;
  Session session_;
  UniqueFd socket_;
  State state_ = State::kHello;
  std::string nonce_;
  uint64_t hello_request_ = 0;
  uint64_t last_request_ = 0;
  // Of a resumed session: which frames come a second time.
  uint64_t restart_ = 0;
  absl::btree_set<uint64_t> awaited_;
  std::chrono::steady_clock::time_point last_read_{};  // when that one was
  uint64_t acquiring_ = 0;  // whose handler has not returned yet; 0: none
  std::deque<Outgoing> outgoing_;
  size_t unread_fds_ = 0;
  uint32_t events_ = EPOLLIN;  // what the socket is watched for
  EventLoop::Source socket_source_;
  EventLoop::Source process_source_;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_CONNECTION_H_
