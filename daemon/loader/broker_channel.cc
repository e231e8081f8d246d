#include "daemon/loader/broker_channel.h"

#include <poll.h>

#include <utility>

#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"
#include "proto/wire/message_socket.h"

namespace bpfgrant::daemon {
namespace {

// With so many replies unread, requests are left unread, too.
constexpr size_t kMaxQueuedReplies = 64;
// The maps that a session's grants share are the most that comes along.
constexpr size_t kMaxFdsFromBroker = kMaxFdsPerGrant;

}  // namespace

BrokerChannel::BrokerChannel(UniqueFd socket)
    : socket_(std::move(socket)), buffer_(kMaxFrameBytes) {}

bool BrokerChannel::IsFull() const {
  return queue_.size() >= kMaxQueuedReplies;
}

absl::StatusOr<BrokerChannel::Request> BrokerChannel::Receive() {
  if (IsFull()) return absl::UnavailableError("replies are piling up");
  auto packet =
      ReceivePacket(socket_.get(), absl::MakeSpan(buffer_), kMaxFdsFromBroker);
  // Out of fds: this one request is lost, and the broker's deadline answers it.
  if (absl::IsResourceExhausted(packet.status())) {
    return absl::UnavailableError(packet.status().message());
  }
  if (!packet.ok()) return packet.status();
  Request request;
  request.fds = std::move(packet->fds);
  if (!request.message.ParseFromArray(packet->bytes.data(),
                                      static_cast<int>(packet->bytes.size())) ||
      request.message.id() == 0) {
    return absl::InvalidArgumentError("not a request of the broker's");
  }
  return request;
}

absl::Status BrokerChannel::Send(LoaderReply message,
                                 std::vector<UniqueFd> fds) {
  queue_.push_back({message.id(), message.SerializeAsString(), std::move(fds)});
  return Flush();
}

absl::Status BrokerChannel::Flush() {
  while (!queue_.empty()) {
    Reply& reply = queue_.front();
    const auto status =
        SendPacket(socket_.get(), reply.bytes, Numbers(reply.fds));
    if (absl::IsUnavailable(status)) return absl::OkStatus();
    if (absl::IsResourceExhausted(status) && !reply.fds.empty()) {
      LoaderReply refused;
      refused.set_id(reply.id);
      *refused.mutable_refusal() =
          RefusalOf(Refuse(v1::REASON_BUSY, "too many fds are in flight"));
      reply = {reply.id, refused.SerializeAsString(), {}};
      continue;
    }
    if (!status.ok()) return absl::OutOfRangeError(status.message());
    queue_.pop_front();
  }
  return absl::OkStatus();
}

short BrokerChannel::events() const {
  return static_cast<short>((queue_.empty() ? 0 : POLLOUT) |
                            (IsFull() ? 0 : POLLIN));
}

}  // namespace bpfgrant::daemon
