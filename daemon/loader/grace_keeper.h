// Grace periods, for the broker, which may not call bpf(2).
//
// The update of an array of maps returns when no program, but for those that
// sleep, is still under way that began before (maybe_wait_bpf_programs in
// kernel/bpf/syscall.c): on every machine. membarrier(2) says so without
// waiting where there is one processor, and not at all with nohz_full.

#ifndef DAEMON_LOADER_GRACE_KEEPER_H_
#define DAEMON_LOADER_GRACE_KEEPER_H_

#include "absl/status/statusor.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::daemon {

// Starts a thread that answers each byte with one, a grace period later, until
// the other end is closed; returns that end, a stream. The thread takes no
// locks and allocates nothing, so that it does not matter to fork(2).
// kInternal: the kernel refused.
absl::StatusOr<UniqueFd> StartGraceKeeper();

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_GRACE_KEEPER_H_
