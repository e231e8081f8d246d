// Folders laid over each other, as systemd has them: the vendor's, then what
// lives until the next boot, then the administrator's. Of files with the same
// name the last one counts; an empty one, or a link to /dev/null, says that
// there is none.
//
// It must not know what the files are for.

#ifndef DAEMON_LOADER_LAYERS_H_
#define DAEMON_LOADER_LAYERS_H_

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "daemon/loader/safe_file.h"
#include "daemon/mitigations.h"

namespace bpfgrant::daemon {

// One of the folders, open. Others may be able to write it: then the names in
// it count, so that what it overrides or masks is not uncovered, and no file of
// it may be read.
struct Layer {
  std::shared_ptr<const SafeDirectory> folder;
  absl::Status safety;  // not OK: REASON_FILE_UNSAFE
};

// Files by name, each with the folder whose file of that name counts.
using LayeredFiles = std::map<std::string, Layer>;

// The folders of these paths, in their order; one that does not exist is left
// out. kInternal: one that cannot be opened.
absl::StatusOr<std::vector<Layer>> OpenLayers(
    absl::Span<const std::string> paths, const Mitigations& mitigations);

// The folders `name` in them. Errors: the same.
absl::StatusOr<std::vector<Layer>> OpenLayersBelow(
    absl::Span<const Layer> layers, const std::string& name);

// The files that end in `suffix`. REASON_TOO_LARGE: more than
// kMaxFilesPerDirectory of them in one folder. kInternal: a folder that cannot
// be listed.
absl::StatusOr<LayeredFiles> FindFiles(absl::Span<const Layer> layers,
                                       std::string_view suffix);

// The file's bytes; none: it masks. Errors: SafeDirectory::Read's, and those of
// the folder's safety.
absl::StatusOr<SealedBytes> ReadLayered(const Layer& layer,
                                        const std::string& name, size_t limit);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_LAYERS_H_
