// What the loader gives up before it reads its first file.

#ifndef DAEMON_LOADER_PRIVILEGES_H_
#define DAEMON_LOADER_PRIVILEGES_H_

#include "absl/status/status.h"

namespace bpfgrant::daemon {

// Leaves this process CAP_BPF and CAP_PERFMON, with `executables` also
// CAP_SYS_PTRACE, with `loops` that and CAP_KILL, root's uid (for what belongs
// to root), and nothing else: no
// other capability in any set, no new privileges, no core dumps or tracing by
// others, and a seccomp filter that refuses with EPERM what a loader never does
// (run programs, trace, mount, load modules, change namespaces, ...). There is
// no way back.
//
// To be called after the fork, before threads. On an error the process must
// end: it is anywhere between. kFailedPrecondition: it has not got
// what it is to keep. kInternal: a call failed, with its errno.
absl::Status DropToLoader(bool loops, bool executables);

// Whether it has CAP_SYS_PTRACE, without which it cannot tell what processes of
// other users execute.
bool MayLookAtProcesses();

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_PRIVILEGES_H_
