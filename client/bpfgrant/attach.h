// Puts a program to work on the caller's own socket or tun device, whichever
// way this kernel allows.

#ifndef BPFGRANT_ATTACH_H_
#define BPFGRANT_ATTACH_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/bpfgrant/connection.h"
#include "client/bpfgrant/grant.h"

namespace bpfgrant {

enum class SocketHook {
  kFilter,     // SO_ATTACH_BPF, socket(7)
  kReuseport,  // SO_ATTACH_REUSEPORT_EBPF
};

enum class TunHook {
  kSteering,  // TUNSETSTEERINGEBPF: chooses the queue of each packet
};

// setsockopt(2): attaches `program` to `socket`. Both remain the caller's. The
// attachment keeps the program alive; once its gate is closed it does what its
// manifest says.
absl::Status AttachBySetsockopt(int socket, int program, SocketHook hook);

// ioctl(2): the same with the device that `queue` belongs to. It replaces the
// program that was there.
absl::Status AttachByIoctl(int queue, int program, TunHook hook);

// Acquires with DELIVERY_ANY and sees to it that the program is attached to
// `socket`: where the daemon handed over its fd, by setsockopt here; else by
// the daemon, which locked the socket (SO_LOCK_FILTER: no other filter can be
// put in its place). `Grant::delivery` says which it was.
absl::StatusOr<Grant> AttachTo(Connection& connection,
                               Connection::AcquireOptions options, int socket,
                               SocketHook hook);

// Likewise with the device of `queue`, an fd of /dev/net/tun with a queue of
// its own. The kernel has no lock for it: whoever has a queue's fd can take the
// program off or replace it, and it stays on the device for as long as that
// lives.
absl::StatusOr<Grant> AttachTo(Connection& connection,
                               Connection::AcquireOptions options, int queue,
                               TunHook hook);

}  // namespace bpfgrant

#endif  // BPFGRANT_ATTACH_H_
