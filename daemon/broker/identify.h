// Who is at the other end of a connection, as the kernel says it.
//
// Nothing that a peer says about itself goes in here.

#ifndef DAEMON_BROKER_IDENTIFY_H_
#define DAEMON_BROKER_IDENTIFY_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "daemon/mitigations.h"
#include "policy/policy.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::broker {

struct Peer {
  // User and groups at connect(2); where it runs and its label when it was
  // accepted; what it executes when that was last asked for (executables.h).
  policy::Subject subject;
  pid_t pid = 0;
  // Refers to the process that connected, never to a later owner of its pid.
  UniqueFd pidfd;
  // The pidfd was opened by number: whether it is the connecting process has to
  // be shown by a nonce that comes back with its credentials.
  bool needs_nonce = false;

  // Its systemd unit; empty: none, or not known.
  std::string unit() const {
    return subject.location.has_value() ? subject.location->unit : "";
  }
};

enum class IdentifyBy {
  kBest,   // SO_PEERPIDFD (Linux 6.5) where there is one, else the nonce
  kNonce,  // the nonce
};

// Asks the kernel about the peer of `socket`. REASON_PEER_UNNAMED if any of
// uid, gid, groups and pidfd cannot be told: the peer is in a pid namespace
// that this one does not see, may have an id that this user namespace has no
// number for, or is dead already.
absl::StatusOr<Peer> Identify(int socket, IdentifyBy how,
                              const daemon::Mitigations& mitigations);

// The same of one whose session an earlier broker had opened. `pidfd` is that
// broker's, or invalid where the kernel gives it for the socket. Where it ran
// when it connected is not known any more. REASON_PEER_UNNAMED also if it has
// exited.
absl::StatusOr<Peer> IdentifyAgain(int socket, UniqueFd pidfd, IdentifyBy how,
                                   const daemon::Mitigations& mitigations);

// The same of a live process, whoever started it and whether or not it has a
// connection; its label is not known. REASON_INVALID_ARGUMENT: there is none,
// or /proc does not show it.
absl::StatusOr<Peer> IdentifyProcess(pid_t pid,
                                     const daemon::Mitigations& mitigations);

// Whether the process of `pidfd` has not exited yet.
bool IsAlive(const UniqueFd& pidfd);

// uid alone, for counting connections before anything else is known.
absl::StatusOr<uid_t> PeerUid(int socket);

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_IDENTIFY_H_
