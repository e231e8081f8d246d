// Whether a BPF object is what its manifest says.

#ifndef DAEMON_LOADER_OBJECT_CHECK_H_
#define DAEMON_LOADER_OBJECT_CHECK_H_

#include "absl/status/status.h"
#include "daemon/loader/manifest.h"

struct bpf_object;

namespace bpfgrant::daemon {

// Whether the object has the program that the manifest names, exactly the maps
// that it names, of those types, and the gate. What else it has of programs is
// never loaded.
//
// Errors, with the manifest's place: REASON_OBJECT_MISMATCH, naming what.
// REASON_GATE_MISSING: no gate map or no variables of the gate.
absl::Status CheckObject(const bpf_object* object, const Manifest& manifest);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_OBJECT_CHECK_H_
