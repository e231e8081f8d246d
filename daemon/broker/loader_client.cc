#include "daemon/broker/loader_client.h"

#include <poll.h>
#include <sys/epoll.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"
#include "proto/wire/message_socket.h"
#include "spdlog/spdlog.h"

namespace bpfgrant::broker {

int64_t MonotonicNs(std::chrono::milliseconds from_now) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             (std::chrono::steady_clock::now() + from_now).time_since_epoch())
      .count();
}

LoaderClient::LoaderClient(EventLoop& loop, UniqueFd socket,
                           std::function<void()> lost)
    : loop_(loop),
      socket_(std::move(socket)),
      lost_(std::move(lost)),
      buffer_(kMaxFrameBytes) {}

absl::StatusOr<LoaderClient::Reply> LoaderClient::Receive() {
  absl::StatusOr<Packet> packet =
      ReceivePacket(socket_.get(), absl::MakeSpan(buffer_), kMaxFdsPerGrant);
  if (!packet.ok()) return packet.status();
  Reply reply;
  if (!reply.message.ParseFromArray(packet->bytes.data(),
                                    static_cast<int>(packet->bytes.size()))) {
    return absl::InvalidArgumentError("not a LoaderReply");
  }
  reply.fds = std::move(packet->fds);
  return reply;
}

absl::StatusOr<LoaderClient::Reply> LoaderClient::WaitReady(
    std::chrono::milliseconds deadline) {
  pollfd watch{socket_.get(), POLLIN, 0};
  if (poll(&watch, 1, static_cast<int>(deadline.count())) <= 0) {
    return Refuse(
        v1::REASON_TIMED_OUT,
        absl::StrCat("the loader said nothing for ", deadline.count(), " ms"));
  }
  absl::StatusOr<Reply> reply = Receive();
  if (!reply.ok()) return reply;
  if (reply->message.has_refusal()) return StatusOf(reply->message.refusal());
  if (!reply->message.has_ready() ||
      (reply->fds.size() != 3 && reply->fds.size() != 5)) {
    return absl::InternalError("the loader's first message is not Ready");
  }
  return reply;
}

void LoaderClient::Start() {
  source_ = loop_.Io(socket_.get(), EPOLLIN,
                     [this](uint32_t events) { OnEvents(events); });
  Flush();
}

void LoaderClient::Send(daemon::LoaderRequest request,
                        std::vector<UniqueFd> fds,
                        std::chrono::milliseconds deadline, Done done) {
  const uint64_t id = next_id_++;
  request.set_id(id);
  Pending& pending = pending_[id];
  pending.done = std::move(done);
  pending.deadline = loop_.Timer(deadline, [this, id, deadline] {
    Finish(id, Refuse(v1::REASON_BUSY,
                      absl::StrCat("the loader did not answer within ",
                                   deadline.count(), " ms")));
  });
  outgoing_.push_back({request.SerializeAsString(), std::move(fds)});
  Flush();
}

void LoaderClient::Flush() {
  while (!outgoing_.empty()) {
    const Outgoing& next = outgoing_.front();
    const absl::Status status =
        SendPacket(socket_.get(), next.bytes, Numbers(next.fds));
    if (absl::IsUnavailable(status)) break;
    // Anything else that sendmsg refuses means the loader is gone or we are out
    // of memory; the deadline answers the request, the end of the socket ends
    // the daemon.
    if (!status.ok()) spdlog::error("to the loader: {}", status.ToString());
    outgoing_.pop_front();
  }
  source_.SetEvents(outgoing_.empty() ? EPOLLIN : EPOLLIN | EPOLLOUT);
}

void LoaderClient::OnEvents(uint32_t events) {
  if ((events & EPOLLOUT) != 0) Flush();
  for (;;) {
    absl::StatusOr<Reply> reply = Receive();
    if (absl::IsUnavailable(reply.status())) return;
    if (absl::IsResourceExhausted(reply.status())) {
      // Out of fds: this one reply is lost, and the deadline answers for it.
      spdlog::error("from the loader: {}", reply.status().ToString());
      continue;
    }
    if (!reply.ok()) {
      spdlog::error("from the loader: {}", reply.status().ToString());
      Lose();
      return;
    }
    const uint64_t id = reply->message.id();
    if (reply->message.has_refusal()) {
      Finish(id, StatusOf(reply->message.refusal()));
    } else {
      Finish(id, std::move(reply));
    }
  }
}

void LoaderClient::Finish(uint64_t id, absl::StatusOr<Reply> reply) {
  const auto found = pending_.find(id);
  if (found == pending_.end()) return;  // Past its deadline.
  Pending pending = std::move(found->second);
  pending_.erase(found);
  pending.done(std::move(reply));
}

void LoaderClient::Abandon() {
  while (!pending_.empty()) {
    Finish(pending_.begin()->first,
           Refuse(v1::REASON_DAEMON_STOPPED, "the daemon stops"));
  }
}

void LoaderClient::Lose() {
  source_ = EventLoop::Source();
  // The callback may take this object apart.
  const std::function<void()> lost = std::move(lost_);
  if (lost) lost();
}

}  // namespace bpfgrant::broker
