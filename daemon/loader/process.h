// Processes, by their pidfds.

#ifndef DAEMON_LOADER_PROCESS_H_
#define DAEMON_LOADER_PROCESS_H_

#include <sys/types.h>

#include <optional>

namespace bpfgrant::daemon {

// The number of the process behind `pidfd`. What is found under it in /proc is
// that process's only if it is alive afterwards. nullopt: it has ended, or has
// no number here.
std::optional<pid_t> PidOf(int pidfd);

// Whether it has not ended.
bool IsAlive(int pidfd);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_PROCESS_H_
