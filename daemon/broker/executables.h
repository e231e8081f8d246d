// What clients execute, as the loader reads it: the broker may not.

#ifndef DAEMON_BROKER_EXECUTABLES_H_
#define DAEMON_BROKER_EXECUTABLES_H_

#include <sys/types.h>

#include <string>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "daemon/broker/loader_client.h"
#include "policy/subject.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::broker {

class Executables {
 public:
  using Done =
      absl::AnyInvocable<void(absl::StatusOr<policy::ExecutableFacts>)>;

  // `why_not`: why the loader cannot tell; empty: it can.
  Executables(LoaderClient& loader, std::string why_not)
      : loader_(loader), why_not_(std::move(why_not)) {}

  // Calls `done` exactly once with what the process of `pidfd` executes now, as
  // far as `kinds` asks for it, or with REASON_BUSY if that cannot be read in
  // time. What hangs is counted against `owner`.
  void Read(const UniqueFd& pidfd, uid_t owner,
            const policy::ExecutableKinds& kinds, Done done);

  const std::string& why_not() const { return why_not_; }

 private:
  LoaderClient& loader_;
  const std::string why_not_;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_EXECUTABLES_H_
