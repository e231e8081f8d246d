// The policy's files: found, judged and read like the catalog's, then compiled
// by policy/.

#ifndef DAEMON_LOADER_POLICY_FILES_H_
#define DAEMON_LOADER_POLICY_FILES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "bpfgrant/daemon/loader.pb.h"
#include "daemon/mitigations.h"

namespace bpfgrant::daemon {

// Reads "*.policy" of all folders and compiles them, in the order of their
// names. A file replaces the one of the same name in a folder before; a folder
// that does not exist holds nothing. User and group names are looked up in the
// machine's databases.
//
// The first complaint ends it: half a policy is none. REASON_FILE_INVALID with
// "file:line:column: what", REASON_FILE_UNSAFE, REASON_TOO_LARGE; kInternal for
// any errno.
absl::StatusOr<std::vector<CompiledRule>> ReadPolicy(
    absl::Span<const std::string> folders, const Mitigations& mitigations);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_POLICY_FILES_H_
