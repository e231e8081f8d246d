#include "daemon/broker/executables.h"

#include <fcntl.h>

#include <utility>
#include <vector>

#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant::broker {
namespace {

policy::ExecutableFacts FactsOf(const daemon::ExecutableReply& reply) {
  policy::ExecutableFacts facts;
  if (reply.has_path()) facts.path = reply.path();
  if (reply.has_sha256()) facts.sha256 = reply.sha256();
  if (reply.has_fsverity()) facts.fsverity = reply.fsverity();
  facts.unknown = reply.unknown();
  return facts;
}

}  // namespace

void Executables::Read(const UniqueFd& pidfd, uid_t owner,
                       const policy::ExecutableKinds& kinds, Done done) {
  if (!why_not_.empty()) {
    policy::ExecutableFacts nothing;
    nothing.unknown = why_not_;
    done(std::move(nothing));
    return;
  }
  std::vector<UniqueFd> fds;
  fds.emplace_back(fcntl(pidfd.get(), F_DUPFD_CLOEXEC, 0));
  if (!fds.front().valid()) {
    done(Refuse(v1::REASON_BUSY, "the client's process cannot be named"));
    return;
  }
  daemon::LoaderRequest request;
  daemon::ExecutableRequest& wanted = *request.mutable_executable();
  wanted.set_path(kinds.path);
  wanted.set_sha256(kinds.sha256);
  wanted.set_fsverity(kinds.fsverity);
  wanted.set_owner(owner);
  wanted.set_until_ns(MonotonicNs(kAttachDeadline));
  // What begins in time is given its whole deadline.
  loader_.Send(
      std::move(request), std::move(fds), 2 * kAttachDeadline + kAttachGrace,
      [done =
           std::move(done)](absl::StatusOr<LoaderClient::Reply> reply) mutable {
        if (reply.ok()) {
          done(FactsOf(reply->message.executable()));
        } else {
          done(reply.status());
        }
      });
}

}  // namespace bpfgrant::broker
