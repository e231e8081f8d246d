// Processes, by their pidfds.

#ifndef DAEMON_PROCESS_H_
#define DAEMON_PROCESS_H_

#include <sys/types.h>

#include <optional>

#include "proto/wire/unique_fd.h"

namespace bpfgrant::daemon {

// The number of the process behind `pidfd` in /proc as it is mounted here,
// which may be that of another pid namespace than this process is in. What is
// found under it there is that process's only if it is alive afterwards.
// nullopt: it has ended, or has no number there.
std::optional<pid_t> PidOf(int pidfd);

// Whether it has not ended.
bool IsAlive(int pidfd);
// Another pidfd of the same process, which shares nothing with `pidfd`;
// invalid: the process is gone, or there is no fd for it.
UniqueFd OpenAgain(int pidfd);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_PROCESS_H_
