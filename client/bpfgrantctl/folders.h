// The folders that the verbs without a daemon look at.

#ifndef CLIENT_BPFGRANTCTL_FOLDERS_H_
#define CLIENT_BPFGRANTCTL_FOLDERS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bpfgrant/v1/config.pb.h"

namespace bpfgrant::ctl {

// The daemon's configuration; where it has none, the usual one.
absl::StatusOr<v1::Config> DaemonsConfig();

// Each absolute, without "." and "..".
std::vector<std::string> Absolute(std::vector<std::string> paths);

// Absolute, without "." and "..". A usage error naming `option`: there is no
// such folder, which the daemon would take for an empty one.
absl::StatusOr<std::string> ExistingFolder(const std::string& option,
                                           const std::string& folder);

// Those given, each as above, or else the daemon's.
absl::StatusOr<std::vector<std::string>> CatalogOrDaemons(
    const std::vector<std::string>& given);

// Files of admission limits, and folders of keys: those given, or else the
// daemon's. They need not exist.
absl::StatusOr<std::vector<std::string>> AdmissionOrDaemons(
    const std::vector<std::string>& given);
absl::StatusOr<std::vector<std::string>> KeysOrDaemons(
    const std::vector<std::string>& given);

}  // namespace bpfgrant::ctl

#endif  // CLIENT_BPFGRANTCTL_FOLDERS_H_
