#include "daemon/broker/connection.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/broker/random.h"
#include "openssl/crypto.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"
#include "spdlog/spdlog.h"

namespace bpfgrant::broker {
namespace {

// Frames served before other peers get their turn.
constexpr int kFramesPerTurn = 16;

}  // namespace

Connection::Connection(const Parts& parts, uint64_t id, UniqueFd socket,
                       Peer peer, bool administrator)
    : parts_(parts), socket_(std::move(socket)) {
  session_.id = id;
  session_.peer = std::move(peer);
  session_.administrator = administrator;
  session_.notify = [this](const v1::Event& event) {
    v1::ServerFrame frame;
    *frame.mutable_event() = event;
    Send(0, frame);
  };
}

Connection::~Connection() = default;

bool Connection::Watched() {
  socket_source_ = parts_.loop.Io(
      socket_.get(), events_, [this](uint32_t events) { OnEvents(events); });
  process_source_ =
      parts_.loop.Io(session_.peer.pidfd.get(), EPOLLIN, [this](uint32_t) {
        End(v1::REASON_SESSION_ENDED, "the process exited");
      });
  if (socket_source_.active() && process_source_.active()) return true;
  End(v1::REASON_BUSY, "it cannot be watched");
  return false;
}

void Connection::Start() {
  if (!Watched()) return;
  if (session_.peer.needs_nonce) {
    nonce_ = RandomBytes(kNonceBytes);
    v1::ServerFrame frame;
    frame.mutable_challenge()->set_nonce(nonce_);
    Send(0, frame);
  }
}

void Connection::End(v1::Reason reason, std::string_view why) {
  if (state_ == State::kEnded) return;
  state_ = State::kEnded;
  spdlog::debug("session {} (uid {}, pid {}) ends, {}: {}", session_.id,
                session_.peer.subject.uid, session_.peer.pid,
                ReasonName(reason), why);
  parts_.watchers.Remove(session_.watch);
  for (const auto& [watcher, end] : session_.streams) {
    parts_.watchers.Remove(watcher);
    end();
  }
  session_.streams.clear();
  parts_.service.EndTrace(session_.trace);
  for (const auto& [reader, end] : session_.traces) {
    parts_.service.EndTrace(reader);
    end();
  }
  session_.traces.clear();
  // The gates first: nothing else about the end is as urgent.
  parts_.granting.EndSession(session_, v1::REASON_SESSION_ENDED);
  socket_source_ = EventLoop::Source();
  process_source_ = EventLoop::Source();
  outgoing_.clear();
  // The service manager may have a copy of it, and the peer is to see the end.
  if (session_.record.has_value()) shutdown(socket_.get(), SHUT_RDWR);
  const uid_t uid = session_.peer.subject.uid;
  const size_t unread = std::exchange(unread_fds_, 0);
  if (unread > 0 && parts_.mitigations.unread_fd_limit &&
      !AllRead(socket_.get())) {
    parts_.linger(std::move(socket_), uid, unread);
  } else {
    parts_.unread_fds.Remove(uid, unread);
    socket_.reset();
  }
  session_.peer.pidfd.reset();
  parts_.over(session_.id);
}

void Connection::OnEvents(uint32_t events) {
  if ((events & EPOLLOUT) != 0) Flush();
  for (int i = 0; i < kFramesPerTurn; ++i) {
    if (state_ == State::kEnded) return;
    // Whoever does not read its replies is not read from.
    if (!outgoing_.empty()) break;
    absl::StatusOr<Packet> packet =
        ReceivePacket(socket_.get(), parts_.buffer, kMaxFdsFromClient);
    if (absl::IsUnavailable(packet.status())) break;
    if (absl::IsOutOfRange(packet.status())) {
      End(v1::REASON_SESSION_ENDED, "the connection was closed");
      return;
    }
    if (!packet.ok()) {
      End(v1::REASON_MALFORMED, std::string(packet.status().message()));
      return;
    }
    OnFrame(*std::move(packet));
  }
  if (state_ != State::kEnded && !outgoing_.empty() &&
      (events & (EPOLLHUP | EPOLLERR)) != 0) {
    End(v1::REASON_SESSION_ENDED, "the connection was closed");
  }
}

bool Connection::IsFromPeer(const Packet& packet) const {
  if (!parts_.mitigations.sender_check) return true;
  const Peer& peer = session_.peer;
  return packet.credentials ==
         Credentials{peer.pid, peer.subject.uid, peer.subject.gid};
}

void Connection::OnFrame(Packet packet) {
  if (!IsFromPeer(packet)) {
    End(v1::REASON_PEER_CHANGED, "a frame of another process or user");
    return;
  }
  last_read_ = std::chrono::steady_clock::now();
  v1::ClientFrame frame;
  if (!frame.ParseFromArray(packet.bytes.data(),
                            static_cast<int>(packet.bytes.size()))) {
    End(v1::REASON_MALFORMED, "a frame that does not parse");
    return;
  }
  // What was under way when the daemon was restarted comes again.
  if (state_ == State::kResuming && !frame.has_resume()) return;
  session_.resent = awaited_.erase(frame.request()) > 0;
  if (!session_.resent && frame.request() <= last_request_) {
    End(v1::REASON_MALFORMED, "a frame that does not count");
    return;
  }
  last_request_ = std::max(last_request_, frame.request());
  switch (frame.body_case()) {
    case v1::ClientFrame::BODY_NOT_SET:
      Refused(frame.request(), Refuse(v1::REASON_INVALID_ARGUMENT,
                                      "a call that this daemon does not know"));
      return;
    case v1::ClientFrame::kHello:
      OnHello(frame);
      return;
    case v1::ClientFrame::kIdentify:
      OnIdentify(frame);
      return;
    case v1::ClientFrame::kResume:
      OnResume(frame);
      return;
    default:
      break;
  }
  if (state_ != State::kOpen) {
    Refused(frame.request(),
            Refuse(v1::REASON_NO_SESSION, "the session has not begun"));
    return;
  }
  session_.request = frame.request();
  Dispatch(frame, std::move(packet.fds));
  session_.request = 0;
  session_.resent = false;
}

void Connection::OnHello(const v1::ClientFrame& frame) {
  if (state_ != State::kHello) {
    Refused(frame.request(),
            Refuse(v1::REASON_OUT_OF_ORDER, "the Hello was said already"));
    return;
  }
  if (frame.hello().version() != v1::PROTOCOL_VERSION_1) {
    Refused(frame.request(),
            Refuse(v1::REASON_PROTOCOL_VERSION,
                   absl::StrCat("this daemon speaks version 1, not ",
                                static_cast<int>(frame.hello().version()))));
    return;
  }
  hello_request_ = frame.request();
  if (session_.peer.needs_nonce) {
    state_ = State::kIdentify;
    return;
  }
  Open();
}

void Connection::OnIdentify(const v1::ClientFrame& frame) {
  if (state_ != State::kIdentify) {
    Refused(frame.request(),
            Refuse(v1::REASON_OUT_OF_ORDER, "nothing was asked"));
    return;
  }
  const std::string& answer = frame.identify().nonce();
  // The frame's credentials were this pid's (OnFrame); that the process of the
  // pidfd lives still shows that the pid has had no other owner since.
  if (answer.size() != nonce_.size() ||
      CRYPTO_memcmp(answer.data(), nonce_.data(), nonce_.size()) != 0 ||
      !IsAlive(session_.peer.pidfd)) {
    End(v1::REASON_PEER_UNNAMED, "the nonce did not come back");
    return;
  }
  Open();
}

void Connection::Open() {
  state_ = State::kOpen;
  session_.token = RandomBytes(kSessionTokenBytes);
  v1::ServerFrame frame;
  v1::HelloReply& hello = *frame.mutable_hello();
  hello.set_version(v1::PROTOCOL_VERSION_1);
  hello.set_server(absl::StrCat("bpfgrantd ", BPFGRANT_VERSION));
  hello.set_session(session_.id);
  hello.set_token(session_.token);
  hello.set_uid(session_.peer.subject.uid);
  hello.set_gid(session_.peer.subject.gid);
  hello.set_pid(static_cast<uint32_t>(session_.peer.pid));
  hello.set_administrator(session_.administrator);
  hello.set_kept(parts_.keeping.Keep(session_, socket_.get()));
  parts_.opened(*this);
  Send(hello_request_, frame);
}

void Connection::Resume(const daemon::SessionRecord& record,
                        LedgerFile::Place place, uint64_t restart) {
  state_ = State::kResuming;
  session_.token = record.token();
  session_.record = place;
  restart_ = restart;
  parts_.opened(*this);
  // How many fds it has not read is not known any more: as many as may be.
  if (!AllRead(socket_.get())) {
    unread_fds_ = kMaxFdsPerGrant;
    parts_.unread_fds.Add(session_.peer.subject.uid, unread_fds_);
  }
  if (!Watched()) return;
  v1::ServerFrame frame;
  frame.mutable_resumed()->set_restart(restart);
  Send(0, frame);
  if (record.watches()) {
    session_.watch = parts_.watchers.Add(
        session_.peer.subject.uid, session_.administrator, session_.notify);
  }
  if (record.traced() != 0) {
    // It has to be asked for again.
    v1::ServerFrame ended;
    ended.mutable_trace_event()->set_grant(record.traced());
    ended.mutable_trace_event()->set_kind(v1::TraceEvent::KIND_ENDED);
    ended.mutable_trace_event()->set_reason(v1::REASON_NOT_KEPT);
    Send(0, ended);
  }
}

void Connection::OnResume(const v1::ClientFrame& frame) {
  const v1::Resume& resume = frame.resume();
  if (state_ != State::kResuming) {
    Refused(frame.request(),
            Refuse(v1::REASON_OUT_OF_ORDER, "the session was not resumed"));
    return;
  }
  // An answer to what an earlier daemon said, and this one has said it since.
  if (resume.restart() < restart_) return;
  awaited_ = {resume.pending().begin(), resume.pending().end()};
  if (resume.restart() > restart_ || awaited_.size() > kMaxResent ||
      (!awaited_.empty() && *awaited_.rbegin() >= frame.request())) {
    End(v1::REASON_MALFORMED, "a Resume of another session");
    return;
  }
  state_ = State::kOpen;
  parts_.granting.SettleUnsent(session_, awaited_,
                               {resume.grant().begin(), resume.grant().end()});
  v1::ServerFrame reply;
  reply.mutable_resume();
  Send(frame.request(), reply);
  // What it holds and we do not know of any more has ended.
  for (const uint64_t grant : resume.grant()) {
    if (session_.grants.contains(grant)) continue;
    // Whoever makes them up does not read them either.
    if (outgoing_.size() >= kMaxQueuedFrames) {
      End(v1::REASON_SLOW_READER, "it does not read");
      return;
    }
    v1::Event event;
    event.set_type(v1::Event::TYPE_GRANT_ENDED);
    event.set_at_unix_ms(UnixMs());
    event.set_reason(v1::REASON_NOT_KEPT);
    event.mutable_grant()->set_grant(grant);
    session_.notify(event);
  }
}

void Connection::Send(uint64_t request, const v1::ServerFrame& frame,
                      std::vector<UniqueFd> fds, uint64_t grant) {
  if (state_ == State::kEnded) return;
  Outgoing packet{"", std::move(fds), grant, request};
  // The frame is const for the callers' sake; the id is the transport's.
  v1::ServerFrame& numbered = const_cast<v1::ServerFrame&>(frame);
  numbered.set_request(request);
  frame.SerializeToString(&packet.bytes);
  if (outgoing_.empty() && TrySend(packet)) return;
  if (state_ == State::kEnded) return;
  if (outgoing_.size() >= kMaxQueuedFrames) {
    // Not from within a call that goes through this session's grants.
    parts_.loop.Post([find = parts_.find, id = session_.id] {
      if (Connection* slow = find(id)) {
        slow->End(v1::REASON_SLOW_READER, "it does not read");
      }
    });
    return;
  }
  outgoing_.push_back(std::move(packet));
  UpdateEvents();
}

bool Connection::MayCarryFds() {
  if (unread_fds_ == 0 || !parts_.mitigations.unread_fd_limit) return true;
  Recount();
  return unread_fds_ == 0;
}

bool Connection::HasShareFor(size_t fds) {
  if (!parts_.mitigations.unread_fd_limit) return true;
  const uid_t uid = session_.peer.subject.uid;
  if (parts_.unread_fds.Of(uid) + fds > kMaxUnreadFdsPerUser) {
    parts_.recount(uid);
  }
  return parts_.unread_fds.Of(uid) + fds <= kMaxUnreadFdsPerUser;
}

absl::Status Connection::TooManyUnread(size_t unread) const {
  return Refuse(
      v1::REASON_TOO_MANY_UNREAD_FDS,
      absl::StrCat("uid ", session_.peer.subject.uid, " has not read ", unread,
                   " fds that were sent to it"));
}

bool Connection::TrySend(Outgoing& packet) {
  if (!packet.fds.empty() && !MayCarryFds()) return false;
  if (!packet.fds.empty() && !HasShareFor(packet.fds.size())) {
    // Requests that waited side by side were all let in; their replies are not.
    const size_t unread = parts_.unread_fds.Of(session_.peer.subject.uid);
    packet.fds.clear();
    parts_.granting.End(packet.grant, v1::REASON_SESSION_ENDED);
    Refused(packet.request, TooManyUnread(unread));
    return true;
  }
  const absl::Status status =
      packet.fds.empty()
          ? SendPacket(socket_.get(), packet.bytes, {})
          : SendPacket(socket_.get(), packet.bytes, Numbers(packet.fds));
  if (absl::IsUnavailable(status)) return false;
  if (status.ok()) {
    unread_fds_ += packet.fds.size();
    parts_.unread_fds.Add(session_.peer.subject.uid, packet.fds.size());
    if (packet.grant != 0) {
      parts_.granting.Sent(packet.grant);
      // If it was not kept so far, now there is a reason.
      parts_.keeping.Keep(session_, socket_.get());
    }
    return true;
  }
  if (absl::IsResourceExhausted(status) && packet.grant != 0) {
    // Nothing was handed over, so nothing stays granted.
    packet.fds.clear();
    parts_.granting.End(packet.grant, v1::REASON_SESSION_ENDED);
    Refused(packet.request,
            Refuse(v1::REASON_BUSY, std::string(status.message())));
    return true;
  }
  parts_.loop.Post([find = parts_.find, id = session_.id,
                    why = std::string(status.message())] {
    if (Connection* broken = find(id)) {
      broken->End(v1::REASON_SESSION_ENDED, why);
    }
  });
  return true;
}

void Connection::Flush() {
  while (!outgoing_.empty() && state_ != State::kEnded) {
    Outgoing packet = std::move(outgoing_.front());
    outgoing_.pop_front();
    if (!TrySend(packet)) {
      outgoing_.push_front(std::move(packet));
      break;
    }
  }
  UpdateEvents();
}

void Connection::UpdateEvents() {
  if (state_ == State::kEnded) return;
  // Edge-triggered: the socket may be writable all the while and what is waited
  // for is that the peer reads, which wakes us each time (sock_wfree).
  const uint32_t events = outgoing_.empty()
                              ? static_cast<uint32_t>(EPOLLIN)
                              : static_cast<uint32_t>(EPOLLOUT) | EPOLLET;
  // Setting what is set counts as an edge, too: it would wake us at once and
  // for as long as the peer does not read.
  if (events == events_) return;
  events_ = events;
  socket_source_.SetEvents(events);
}

void Connection::Recount() {
  if (unread_fds_ == 0 || state_ == State::kEnded || !AllRead(socket_.get())) {
    return;
  }
  parts_.unread_fds.Remove(session_.peer.subject.uid, unread_fds_);
  unread_fds_ = 0;
}

void Connection::SayGoodbye() {
  if (!open()) return;
  parts_.granting.EndSession(session_, v1::REASON_DAEMON_STOPPED);
}

}  // namespace bpfgrant::broker
