// A manifest for an inspected object: what can be told from the object, the
// narrowest rights that can work, and the rest left to a human.

#ifndef DAEMON_LOADER_INSPECTION_DRAFT_H_
#define DAEMON_LOADER_INSPECTION_DRAFT_H_

#include <string>

#include "absl/status/statusor.h"
#include "bpfgrant/v1/inspection.pb.h"
#include "daemon/loader/manifest.h"

namespace bpfgrant::daemon {

struct DraftRequest {
  std::string name;      // of the program to be
  std::string object;    // the object's file name
  std::string function;  // "": the only one that can be granted
  // The manifest of that name, if there is one: what a human decided there is
  // kept where it still fits.
  const Manifest* known = nullptr;
};

// Errors, none of which is a guess: REASON_OBJECT_MISMATCH: no program, or more
// than one, that can be granted; a map that no manifest can name; another type
// than the known one's. REASON_GATE_MISSING. REASON_INVALID_ARGUMENT: the name,
// or the known manifest has variants.
absl::StatusOr<v1::Draft> WriteDraft(const v1::Inspection& inspection,
                                     const DraftRequest& request);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_INSPECTION_DRAFT_H_
