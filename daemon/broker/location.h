// Where a process runs: its cgroup, and the system manager's unit and slices
// that this cgroup is in.

#ifndef DAEMON_BROKER_LOCATION_H_
#define DAEMON_BROKER_LOCATION_H_

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>

#include "daemon/mitigations.h"
#include "policy/cgroup.h"

namespace bpfgrant::broker {

// Of the process behind `pidfd`, as of its first thread. nullopt: not known,
// because it has ended, /proc does not show it (hidepid=, another namespace),
// or there is no cgroup v2. `pid`, its number for this process, is not trusted.
std::optional<policy::Location> ReadLocation(
    int pidfd, pid_t pid, const daemon::Mitigations& mitigations);

// What `cgroup` means in the hierarchy that is mounted at `root`. A unit or
// slice counts only if every directory above it is root's and nobody else can
// write it: else anybody may have made a directory of that name.
policy::Location LocateBelow(const std::string& root, std::string_view cgroup,
                             const daemon::Mitigations& mitigations);

// LocateBelow, in the hierarchy that this machine has. nullopt: none.
std::optional<policy::Location> LocateAgain(
    std::string_view cgroup, const daemon::Mitigations& mitigations);

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_LOCATION_H_
