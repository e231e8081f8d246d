// The administrator's files of admission limits.

#ifndef DAEMON_LOADER_ADMISSION_FILES_H_
#define DAEMON_LOADER_ADMISSION_FILES_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "daemon/loader/admission_limits.h"
#include "daemon/mitigations.h"

namespace bpfgrant::daemon {

// What is built in, overridden by each of `files` (absolute paths) that is
// there, in their order.
//
// The first complaint ends it: REASON_FILE_INVALID with "file:line:column:
// what", REASON_FILE_UNSAFE, REASON_TOO_LARGE; kInternal for any errno.
absl::StatusOr<AdmissionLimits> ReadAdmissionLimits(
    absl::Span<const std::string> files, const Mitigations& mitigations);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_ADMISSION_FILES_H_
