#include "client/bpfgrant/grant.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/channel.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant {

Grant::Grant(std::shared_ptr<Channel> channel, const v1::AcquireReply& reply,
             std::vector<UniqueFd> fds)
    : channel_(std::move(channel)),
      id_(reply.grant()),
      delivery_(reply.delivery()),
      interface_hash_(reply.interface_hash()) {
  for (size_t i = 0; i < fds.size(); ++i) {
    handles_.push_back({reply.handle(static_cast<int>(i)), std::move(fds[i])});
  }
}

Grant::Grant(Grant&&) noexcept = default;

Grant& Grant::operator=(Grant&& other) noexcept {
  if (this == &other) return *this;
  const Grant old = std::move(*this);
  channel_ = std::move(other.channel_);
  id_ = other.id_;
  delivery_ = other.delivery_;
  interface_hash_ = std::move(other.interface_hash_);
  handles_ = std::move(other.handles_);
  return *this;
}

Grant::~Grant() {
  if (channel_ == nullptr) return;
  if (!ended()) {
    channel_->ReleaseSoon(id_);
  }
  channel_->Forget(id_);
}

absl::StatusOr<const Grant::Handle*> Grant::Find(
    const std::string& name) const {
  for (const Handle& handle : handles_) {
    if (handle.description.name() == name) return &handle;
  }
  return absl::NotFoundError(absl::StrCat("no handle '", name, "'"));
}

int Grant::program_fd() const {
  for (const Handle& handle : handles_) {
    if (handle.description.kind() == v1::HANDLE_KIND_PROGRAM) {
      return handle.fd.get();
    }
  }
  return -1;
}

bool Grant::ended() const { return end_reason() != v1::REASON_UNSPECIFIED; }

v1::Reason Grant::end_reason() const {
  return channel_ == nullptr ? v1::REASON_RELEASED : channel_->EndOf(id_);
}

absl::StatusOr<std::vector<std::string>> Grant::Rotate(
    const std::vector<std::string>& maps, std::chrono::milliseconds deadline) {
  if (channel_ == nullptr) {
    return Refuse(v1::REASON_UNKNOWN_GRANT, "it was released already");
  }
  if (deadline < std::chrono::milliseconds(1) ||
      deadline > kMaxRotateDeadline) {
    return Refuse(v1::REASON_INVALID_ARGUMENT,
                  "a deadline is from a millisecond to a minute");
  }
  v1::ClientFrame frame;
  v1::RotateRequest& request = *frame.mutable_rotate();
  request.set_grant(id_);
  *request.mutable_map() = {maps.begin(), maps.end()};
  request.set_deadline_ms(static_cast<uint32_t>(deadline.count()));
  const auto reply = channel_->Call(frame, {}, deadline);
  if (!reply.ok()) return reply.status();
  const auto& current = reply->frame.rotate().current();
  return std::vector<std::string>(current.begin(), current.end());
}

absl::Status Grant::Release() {
  if (channel_ == nullptr) {
    return Refuse(v1::REASON_UNKNOWN_GRANT, "it was released already");
  }
  const std::shared_ptr<Channel> channel = std::move(channel_);
  channel->Forget(id_);
  handles_.clear();
  v1::ClientFrame frame;
  frame.mutable_release()->set_grant(id_);
  return channel->Call(frame).status();
}

absl::Status Grant::ReleaseAndWait(std::chrono::milliseconds patience) {
  if (channel_ == nullptr) {
    return Refuse(v1::REASON_UNKNOWN_GRANT, "it was released already");
  }
  handles_.clear();
  v1::ClientFrame frame;
  frame.mutable_release()->set_grant(id_);
  frame.mutable_release()->set_wait_ms(
      static_cast<uint32_t>(std::max<int64_t>(patience.count(), 1)));
  absl::Status status = channel_->Call(frame, {}, patience).status();
  switch (ReasonOf(status)) {
    case v1::REASON_KERNEL_TOO_OLD:
    case v1::REASON_INVALID_ARGUMENT:
      break;
    case v1::REASON_STILL_HELD:
      channel_->Forget(id_);
      break;
    default:
      channel_->Forget(id_);
      channel_.reset();
  }
  return status;
}

}  // namespace bpfgrant
