// The catalog: all approved programs, as they were found in the folders at one
// moment. Immutable; a reload makes another.

#ifndef DAEMON_LOADER_CATALOG_H_
#define DAEMON_LOADER_CATALOG_H_

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "bpfgrant/daemon/loader.pb.h"
#include "daemon/loader/admission.h"

namespace bpfgrant::daemon {

// A manifest that counts, before it is read.
struct ManifestFile {
  std::shared_ptr<const SafeDirectory> folder;
  absl::Status safety;  // of the folder; not OK: it must not be read
};

// "*.manifest" of all folders, by file name. One overrides that of the same
// name in a folder before; an empty one masks it. A folder that does not exist
// holds nothing.
//
// Errors: REASON_TOO_LARGE: more than kMaxFilesPerDirectory manifests in one
// folder. kInternal: a folder that cannot be listed.
absl::StatusOr<std::map<std::string, ManifestFile>> FindManifests(
    absl::Span<const std::string> folders, const Mitigations& mitigations);

class Catalog {
 public:
  Catalog() = default;

  // Reads what FindManifests finds. What is wrong with an entry, its file, or
  // the safety of its folder makes that program unavailable and touches no
  // other: it never uncovers what it overrides. Errors: FindManifests'.
  static absl::StatusOr<Catalog> Read(absl::Span<const std::string> folders,
                                      Admission& admission);

  // By name; null if there is none.
  std::shared_ptr<const Program> Find(std::string_view name) const;

  // What the broker is told of it, by name, together with `rules`.
  Snapshot Describe(absl::Span<const CompiledRule> rules) const;

  size_t size() const { return programs_.size(); }

 private:
  std::map<std::string, std::shared_ptr<const Program>, std::less<>> programs_;
};

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_CATALOG_H_
