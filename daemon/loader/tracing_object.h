// A tracing program's object before it is loaded, and whether it is what its
// manifest says.

#ifndef DAEMON_LOADER_TRACING_OBJECT_H_
#define DAEMON_LOADER_TRACING_OBJECT_H_

#include "absl/status/status.h"
#include "daemon/loader/manifest.h"

struct bpf_map;
struct bpf_object;

namespace bpfgrant::daemon {

// Which processes hold grants (enrolled.bpf.h).
inline constexpr char kEnrolledMap[] = "bpfgrant_enrolled_tasks";
// What takes out a process that executes another program; no hook of the
// manifest's.
inline constexpr char kExecutedProgram[] = "bpfgrant_executed";

// The object has exactly the functions that the manifest hooks, each for its
// tracepoint, and what enrolled.bpf.h declares. REASON_OBJECT_MISMATCH, with
// the place.
absl::Status CheckHookedPrograms(const bpf_object* object,
                                 const Manifest& manifest);

// Map `index` of the manifest is an array of maps, one for each gate.
absl::Status CheckMapOfEachGrant(bpf_map* map, const Manifest& manifest,
                                 int index);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_TRACING_OBJECT_H_
