#include "client/channel.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant {
namespace {

constexpr size_t kMaxKeptEvents = 1024;

}  // namespace

Channel::Channel(UniqueFd socket, std::chrono::milliseconds timeout)
    : socket_(std::move(socket)),
      owner_(getpid()),
      timeout_(timeout),
      buffer_(kMaxFrameBytes) {}

absl::Status Channel::Gone() {
  socket_.reset();
  for (auto& [grant, reason] : grants_) {
    if (reason == v1::REASON_UNSPECIFIED) reason = v1::REASON_SESSION_ENDED;
  }
  return absl::UnavailableError(
      "the connection to bpfgrantd is gone; connect again");
}

absl::Status Channel::Wait(short events, Clock::time_point until) {
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now());
    pollfd watch{socket_.get(), events, 0};
    const int ready =
        poll(&watch, 1, static_cast<int>(std::max<int64_t>(left.count(), 0)));
    if (ready > 0) return absl::OkStatus();
    if (ready == 0) {
      return absl::DeadlineExceededError("bpfgrantd did not answer in time");
    }
    if (errno != EINTR) {
      return absl::InternalError(absl::StrCat("poll: ", std::strerror(errno)));
    }
  }
}

absl::Status Channel::Send(v1::ClientFrame& frame, absl::Span<const int> fds,
                           Clock::time_point until) {
  if (!socket_.valid()) return Gone();
  if (getpid() != owner_) {
    // A frame from here would end the parent's session.
    return absl::FailedPreconditionError(
        "this is another process than the one that connected; connect again");
  }
  frame.set_request(++last_request_);
  Request request{frame.SerializeAsString(), {fds.begin(), fds.end()}};
  if (request.bytes.size() > kMaxFrameBytes) {
    return absl::InvalidArgumentError("the request is too large");
  }
  const absl::Status status = SendBytes(request, until);
  if (status.ok() && !opening_ && !frame.has_resume()) {
    unanswered_.emplace(frame.request(), std::move(request));
  }
  return status;
}

absl::Status Channel::SendBytes(const Request& request,
                                Clock::time_point until) {
  // Effective ids: what the kernel noted at connect(2).
  const Credentials self{getpid(), geteuid(), getegid()};
  for (;;) {
    const absl::Status status =
        SendPacket(socket_.get(), request.bytes, request.fds, self);
    if (absl::IsOutOfRange(status)) return GoneBecause();
    if (!absl::IsUnavailable(status)) return status;
    if (absl::Status wait = Wait(POLLOUT, until); !wait.ok()) return wait;
  }
}

void Channel::OnResumed(const v1::Resumed& resumed) {
  const std::map<uint64_t, Request> again = unanswered_;
  v1::ClientFrame frame;
  frame.mutable_resume()->set_restart(resumed.restart());
  for (const auto& [number, request] : again) {
    if (frame.resume().pending_size() == static_cast<int>(kMaxResent)) break;
    frame.mutable_resume()->add_pending(number);
  }
  for (const auto& [grant, end] : grants_) {
    if (end == v1::REASON_UNSPECIFIED) frame.mutable_resume()->add_grant(grant);
  }
  const auto until = Clock::now() + timeout_;
  absl::Status status = Send(frame, {}, until);
  for (const uint64_t number : frame.resume().pending()) {
    if (status.ok()) status = SendBytes(again.at(number), until);
  }
  // A connection on which that does not go is of no more use.
  if (!status.ok()) Gone().IgnoreError();
  v1::Event event;
  event.set_type(v1::Event::TYPE_RESUMED);
  Deliver(event);
}

absl::Status Channel::GoneBecause() {
  for (;;) {
    const absl::StatusOr<Reply> left = ReceiveOne();
    if (!left.ok()) return Gone();
    TakeUnasked(left->frame);
    if (left->frame.has_refusal() && left->frame.request() == 0) {
      const absl::Status why = StatusOf(left->frame.refusal());
      Gone().IgnoreError();
      return why;
    }
  }
}

absl::StatusOr<Channel::Reply> Channel::ReceiveOne() {
  if (!socket_.valid()) return Gone();
  absl::StatusOr<Packet> packet =
      ReceivePacket(socket_.get(), absl::MakeSpan(buffer_), kMaxFdsPerGrant);
  if (absl::IsOutOfRange(packet.status())) {
    // A reset is told before what was sent ahead of it.
    packet =
        ReceivePacket(socket_.get(), absl::MakeSpan(buffer_), kMaxFdsPerGrant);
  }
  if (!packet.ok()) {
    if (absl::IsUnavailable(packet.status())) return packet.status();
    const absl::Status gone = Gone();
    return absl::IsOutOfRange(packet.status()) ? gone : packet.status();
  }
  Reply reply;
  if (!reply.frame.ParseFromArray(packet->bytes.data(),
                                  static_cast<int>(packet->bytes.size()))) {
    Gone().IgnoreError();
    return absl::InternalError("bpfgrantd sent a frame that does not parse");
  }
  reply.fds = std::move(packet->fds);
  unanswered_.erase(reply.frame.request());
  return reply;
}

void Channel::Deliver(const v1::Event& event) {
  if (event.type() == v1::Event::TYPE_GRANT_ENDED) {
    const auto ours = grants_.find(event.grant().grant());
    if (ours != grants_.end()) ours->second = event.reason();
  }
  if (on_event_) {
    on_event_(event);
    return;
  }
  if (events_.size() >= kMaxKeptEvents) events_.pop_front();
  events_.push_back(event);
}

bool Channel::TakeUnasked(const v1::ServerFrame& frame) {
  if (frame.has_resumed()) {
    if (opening_) {
      // The answer to the Hello is lost: it is begun anew.
      Gone().IgnoreError();
      return true;
    }
    OnResumed(frame.resumed());
    return true;
  }
  if (frame.has_event()) {
    Deliver(frame.event());
    return true;
  }
  if (!frame.has_trace_event()) return false;
  uint64_t dropped = frame.trace_event().dropped();
  if (traces_.size() >= kMaxKeptEvents) {
    dropped += traces_.front().dropped() + 1;
    traces_.pop_front();
  }
  traces_.push_back(frame.trace_event());
  traces_.back().set_dropped(dropped);
  return true;
}

absl::StatusOr<Channel::Reply> Channel::Receive(Clock::time_point until) {
  for (;;) {
    absl::StatusOr<Reply> reply = ReceiveOne();
    if (reply.ok()) {
      if (!TakeUnasked(reply->frame)) return reply;
      continue;
    }
    // Of a socket that is there kUnavailable means: nothing yet.
    if (!absl::IsUnavailable(reply.status()) || !socket_.valid()) {
      return reply.status();
    }
    if (absl::Status wait = Wait(POLLIN, until); !wait.ok()) return wait;
  }
}

absl::StatusOr<Channel::Reply> Channel::Call(
    v1::ClientFrame& frame, absl::Span<const int> fds,
    std::chrono::milliseconds patience) {
  const auto until = Clock::now() + timeout_ + patience;
  SendReleases();
  if (absl::Status status = Send(frame, fds, until); !status.ok()) {
    return status;
  }
  for (;;) {
    absl::StatusOr<Reply> reply = Receive(until);
    if (!reply.ok()) {
      // Its fds are the caller's, who waits no more.
      unanswered_.erase(frame.request());
      return reply;
    }
    const v1::ServerFrame& answer = reply->frame;
    // Id 0 with a refusal: we were turned away before we could say anything.
    if (answer.has_refusal() &&
        (answer.request() == frame.request() || answer.request() == 0)) {
      return StatusOf(answer.refusal());
    }
    if (answer.request() == frame.request()) return reply;
    if (opening_ && answer.request() == 0 && answer.has_challenge()) {
      return reply;
    }
    Discard(*reply);
  }
}

void Channel::Discard(const Reply& reply) {
  // The reply to a call that was given up, or to a release that nobody waits
  // for. A grant in it is one that nobody will hold.
  if (reply.frame.has_acquire()) {
    ReleaseSoon(reply.frame.acquire().grant());
  }
}

void Channel::ReleaseSoon(uint64_t grant) {
  releases_.push_back(grant);
  SendReleases();
}

void Channel::SendReleases() {
  while (!releases_.empty()) {
    v1::ClientFrame frame;
    frame.mutable_release()->set_grant(releases_.front());
    const absl::Status status = Send(frame, {}, Clock::now());
    if (absl::IsDeadlineExceeded(status)) return;  // No room now.
    releases_.pop_front();
  }
}

absl::Status Channel::Open() {
  opening_ = true;
  v1::ClientFrame hello;
  hello.mutable_hello()->set_version(v1::PROTOCOL_VERSION_1);
  hello.mutable_hello()->set_client(
      absl::StrCat("libbpfgrant ", BPFGRANT_VERSION));
  absl::StatusOr<Reply> reply = Call(hello);
  if (reply.ok() && reply->frame.has_challenge()) {
    v1::ClientFrame identify;
    identify.mutable_identify()->set_nonce(reply->frame.challenge().nonce());
    const auto until = Clock::now() + timeout_;
    if (absl::Status status = Send(identify, {}, until); !status.ok()) {
      return status;
    }
    reply = Receive(until);
    if (reply.ok() && reply->frame.has_refusal()) {
      return StatusOf(reply->frame.refusal());
    }
  }
  if (!reply.ok()) return reply.status();
  opening_ = false;
  const v1::HelloReply& answer = reply->frame.hello();
  if (answer.version() != v1::PROTOCOL_VERSION_1 ||
      answer.token().size() != kSessionTokenBytes) {
    return absl::InternalError("bpfgrantd did not answer the Hello");
  }
  session_ = answer;
  return absl::OkStatus();
}

absl::Status Channel::Drain() {
  SendReleases();
  for (;;) {
    absl::StatusOr<Reply> reply = ReceiveOne();
    if (reply.ok()) {
      if (!TakeUnasked(reply->frame)) Discard(*reply);
      continue;
    }
    if (absl::IsUnavailable(reply.status()) && socket_.valid()) {
      return absl::OkStatus();
    }
    return reply.status();
  }
}

absl::StatusOr<v1::Event> Channel::WaitEvent(Clock::time_point until) {
  while (events_.empty()) {
    const absl::Status status = Drain();
    if (!events_.empty()) break;  // What came before the end comes first.
    if (!status.ok()) return status;
    if (absl::Status wait = Wait(POLLIN, until); !wait.ok()) return wait;
  }
  v1::Event event = std::move(events_.front());
  events_.pop_front();
  return event;
}

absl::StatusOr<v1::TraceEvent> Channel::WaitTrace(Clock::time_point until) {
  while (traces_.empty()) {
    const absl::Status status = Drain();
    if (!traces_.empty()) break;
    if (!status.ok()) return status;
    if (absl::Status wait = Wait(POLLIN, until); !wait.ok()) return wait;
  }
  v1::TraceEvent event = std::move(traces_.front());
  traces_.pop_front();
  return event;
}

void Channel::Remember(uint64_t grant) {
  grants_.emplace(grant, v1::REASON_UNSPECIFIED);
}

v1::Reason Channel::EndOf(uint64_t grant) const {
  const auto found = grants_.find(grant);
  return found == grants_.end() ? v1::REASON_RELEASED : found->second;
}

}  // namespace bpfgrant
