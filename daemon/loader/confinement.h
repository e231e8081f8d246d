// Work on what may be hostile, in a process of its own that can do little.

#ifndef DAEMON_LOADER_CONFINEMENT_H_
#define DAEMON_LOADER_CONFINEMENT_H_

#include <chrono>
#include <functional>
#include <string>

#include "absl/status/statusor.h"

namespace bpfgrant::daemon {

// Whether this process may load programs: CAP_BPF and CAP_PERFMON.
bool MayLoad();

// Runs `work` in a child with bounded memory, which is killed at the deadline
// and dies with this process. Returns what it returns. To be called before
// there are threads.
//
// If MayLoad, the child gives up what the loader gives up (privileges.h).
//
// Errors: the work's. kDeadlineExceeded. kResourceExhausted: a result of more
// than 64 MiB. REASON_FILE_INVALID: it died of what it read. kInternal: a call
// failed.
absl::StatusOr<std::string> RunConfined(
    const std::function<absl::StatusOr<std::string>()>& work,
    std::chrono::milliseconds deadline);

// For the work, once it has all that it needs: from then on the process can
// compute, get memory, make files that stay empty, write what it has to say,
// and end. Any other system call fails with EPERM. kInternal: a call failed.
absl::Status ForbidSystemCalls();

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_CONFINEMENT_H_
