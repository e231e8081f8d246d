// The two listening sockets: adopted from the service manager, or bound in a
// runtime directory that nobody else can write.

#ifndef DAEMON_SOCKETS_H_
#define DAEMON_SOCKETS_H_

#include <string>

#include "absl/status/statusor.h"
#include "daemon/fd_store.h"
#include "daemon/mitigations.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::daemon {

struct Sockets {
  UniqueFd broker;   // SOCK_SEQPACKET, listens
  UniqueFd control;  // SOCK_STREAM, listens
  // Held for as long as either process lives: a second daemon on the same
  // directory is refused. Empty with adopted sockets.
  UniqueFd lock;
  UniqueFd directory;
  bool bound = false;  // ours to remove at the end
  // What an earlier daemon left in the service manager's store: each process's.
  StoredFds brokers, loaders;
};

// Adopts what systemd passed (sd_listen_fds(3)), else binds broker.sock and
// control.sock in `runtime_directory`, which is made if need be, must be
// root's, and must not be writable by others. Everybody may connect: who may do
// what is the policy's business. While still root.
absl::StatusOr<Sockets> OpenSockets(const std::string& runtime_directory,
                                    const Mitigations& mitigations);

// Takes bound sockets out of the directory.
void RemoveSockets(const Sockets& sockets);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_SOCKETS_H_
