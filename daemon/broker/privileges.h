// What the broker gives up, before it reads the first byte of a client's.

#ifndef DAEMON_BROKER_PRIVILEGES_H_
#define DAEMON_BROKER_PRIVILEGES_H_

#include <sys/types.h>

#include "absl/status/status.h"
#include "daemon/mitigations.h"

namespace bpfgrant::broker {

// Becomes `uid` and `gid` without supplementary groups and without any
// capability, the bounding set included; no_new_privs; not dumpable, so that
// nobody of the same uid can trace it; and a seccomp filter that answers EPERM
// to bpf(2), ptrace(2), exec, mounts, namespaces and what else it never needs.
// There is no way back. kInternal, with the step that failed: the caller exits.
absl::Status DropToBroker(uid_t uid, gid_t gid,
                          const daemon::Mitigations& mitigations);

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_PRIVILEGES_H_
