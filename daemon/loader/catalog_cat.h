// Which files make a program's manifest, or a part of the policy, and what
// comes of them: for people, without a daemon, and with no more than the right
// to read them.

#ifndef DAEMON_LOADER_CATALOG_CAT_H_
#define DAEMON_LOADER_CATALOG_CAT_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "bpfgrant/v1/cat.pb.h"

namespace bpfgrant::daemon {

// The manifest `file` ("NAME.manifest") of the catalog in `folders`. What is
// wrong with its files is in the entry.
//
// REASON_UNKNOWN_PROGRAM: no folder has one. Errors of the folders themselves:
// OpenLayers'.
absl::StatusOr<v1::CatEntry> CatManifest(const std::string& file,
                                         absl::Span<const std::string> folders);

// The same of "NAME.policy", which is parsed and not compiled.
// REASON_INVALID_ARGUMENT: no folder has one.
absl::StatusOr<v1::CatEntry> CatPolicy(const std::string& file,
                                       absl::Span<const std::string> folders);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_CATALOG_CAT_H_
