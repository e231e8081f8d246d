// The maps of a drafted manifest.

#ifndef DAEMON_LOADER_INSPECTION_MAP_DRAFT_H_
#define DAEMON_LOADER_INSPECTION_MAP_DRAFT_H_

#include <string>

#include "absl/status/status.h"
#include "bpfgrant/v1/inspection.pb.h"
#include "bpfgrant/v1/manifest.pb.h"
#include "daemon/loader/inspection/manifest_text.h"

namespace bpfgrant::daemon {

// Makes the manifest's maps those of the object. The ones that it has already
// stay as they are, as far as their kind is right; of the others a client gets
// no more than the other end of what `program` does with them. `traces`: each
// is an array with one for each grant.
//
// REASON_OBJECT_MISMATCH: a map that no manifest can name.
absl::Status DraftMaps(const v1::Inspection& inspection,
                       const std::string& program, bool traces,
                       v1::Manifest& manifest, AllRemarks& remarks);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_INSPECTION_MAP_DRAFT_H_
