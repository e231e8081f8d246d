// The policy's files: found, judged and read like the catalog's, then compiled
// by policy/.

#ifndef DAEMON_LOADER_POLICY_FILES_H_
#define DAEMON_LOADER_POLICY_FILES_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "bpfgrant/daemon/loader.pb.h"
#include "daemon/mitigations.h"
#include "policy/policy.h"
#include "policy/signatures.h"

namespace bpfgrant::daemon {

inline constexpr std::string_view kPolicySuffix = ".policy";

struct Policy {
  std::vector<CompiledRule> rules;
  policy::SignatureRules signatures;
};

// The machine's databases of users and groups.
const policy::NameResolver& MachineNames();

// Reads "*.policy" of all folders, laid over each other (layers.h), and
// compiles them, in the order of their names. User and group names are looked
// up in the machine's databases. `catalog_folders` are those that signatures
// can be wanted in.
//
// The first complaint ends it: half a policy is none. REASON_FILE_INVALID with
// "file:line:column: what", REASON_FILE_UNSAFE, REASON_TOO_LARGE; kInternal for
// any errno.
absl::StatusOr<Policy> ReadPolicy(absl::Span<const std::string> folders,
                                  absl::Span<const std::string> catalog_folders,
                                  const Mitigations& mitigations);

// What ReadPolicy would complain about, of every file by itself; if there is
// nothing, of all together.
struct PolicyCheck {
  std::vector<absl::Status> complaints;
  Policy policy;  // if there are none
};
PolicyCheck CheckPolicy(absl::Span<const std::string> folders,
                        absl::Span<const std::string> catalog_folders,
                        const Mitigations& mitigations);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_POLICY_FILES_H_
