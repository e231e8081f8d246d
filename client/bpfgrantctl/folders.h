// The folders that the verbs without a daemon look at.

#ifndef CLIENT_BPFGRANTCTL_FOLDERS_H_
#define CLIENT_BPFGRANTCTL_FOLDERS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace bpfgrant::ctl {

// Absolute, without "." and "..". A usage error naming `option`: there is no
// such folder, which the daemon would take for an empty one.
absl::StatusOr<std::string> ExistingFolder(const std::string& option,
                                           const std::string& folder);

// Those given, each as above, or else the daemon's.
absl::StatusOr<std::vector<std::string>> CatalogOrDaemons(
    const std::vector<std::string>& given);

// Files of admission limits, likewise.
absl::StatusOr<std::vector<std::string>> AdmissionOrDaemons(
    const std::vector<std::string>& given);

}  // namespace bpfgrant::ctl

#endif  // CLIENT_BPFGRANTCTL_FOLDERS_H_
