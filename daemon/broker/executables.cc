#include "daemon/broker/executables.h"

#include <fcntl.h>

#include <optional>
#include <utility>
#include <vector>

#include "proto/wire/limits.h"

namespace bpfgrant::broker {
namespace {

policy::ExecutableFacts Unknown(std::string why) {
  policy::ExecutableFacts facts;
  facts.unknown = std::move(why);
  return facts;
}

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
  std::vector<UniqueFd> fds;
  fds.emplace_back(fcntl(pidfd.get(), F_DUPFD_CLOEXEC, 0));
  if (!why_not_.empty() || !fds.front().valid()) {
    done(Unknown(why_not_.empty() ? "the process cannot be named" : why_not_));
    return;
  }
  daemon::LoaderRequest request;
  daemon::ExecutableRequest& wanted = *request.mutable_executable();
  wanted.set_path(kinds.path);
  wanted.set_sha256(kinds.sha256);
  wanted.set_fsverity(kinds.fsverity);
  wanted.set_owner(owner);
  wanted.set_until_ns(MonotonicNs(kAttachDeadline));
  loader_.Send(std::move(request), std::move(fds),
               kAttachDeadline + kAttachGrace,
               [done = std::move(done)](
                   absl::StatusOr<LoaderClient::Reply> reply) mutable {
                 done(reply.ok() ? FactsOf(reply->message.executable())
                                 : Unknown(std::string(
                                       reply.status().message())));
               });
}

}  // namespace bpfgrant::broker
