// An instance: one loaded copy of an approved program, with maps of its own.

#ifndef DAEMON_LOADER_INSTANCE_H_
#define DAEMON_LOADER_INSTANCE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "daemon/loader/admission.h"
#include "daemon/mitigations.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::daemon {

// An object of the kernel's, by the number that the census has for it.
struct ObjectId {
  bool program = false;  // or a map
  uint32_t id = 0;
  std::string name;
};
// The program first: it keeps the others.
using ObjectIds = std::vector<ObjectId>;

// Owns the fds that a client may get. The kernel keeps the program while its fd
// or an attachment does, and the program keeps all its maps.
struct Instance {
  // Of a loop the map of its structure, which is not for clients: who has it
  // can attach the loop to any ring of their own.
  UniqueFd program;
  // In the order of the snapshot's handles, each with the manifest's rights and
  // no more.
  std::vector<UniqueFd> handles;
  // Maps with SCOPE_SESSION that this load made, for the session's next.
  std::vector<UniqueFd> session_maps;
  // The maps that parameters go into, in the manifest's order of these.
  std::vector<UniqueFd> entry_maps;
  // What this load made: for this instance alone, and for its session.
  ObjectIds objects;
  ObjectIds session_objects;
};

// Adds the id of a map to `ids`. kInternal: the kernel did not say.
absl::Status AddMapId(int map, ObjectIds& ids);

// Whether two maps are of one kind, size and name.
bool AreAlike(int map, int other);

// The maps that all instances share. Their owner is whoever calls.
struct DaemonMaps {
  int gate = -1;
  // -1: this kernel has no loops.
  int trace = -1;
  int steps = -1;
};

// Loads `program`, which must be available, behind slot `slot` of the gate
// map: it runs while that slot holds `nonce`, which must not be 0.
//
// `parameters` are values for those that are constants; of all others, and
// without any, it is the default.
//
// `session_maps` are those of an earlier load for the same session, or empty.
//
// REASON_LOAD_FAILED: the kernel refused, with its errno. REASON_BUSY:
// likewise, for want of memory or fds. REASON_INVALID_ARGUMENT: a session map
// is not one that this program makes. REASON_PARAMETER_*: policy::Settle's.
// kInternal: the kernel did not narrow an fd as asked.
absl::StatusOr<Instance> LoadInstance(
    const Program& program, const DaemonMaps& maps, uint32_t slot,
    uint64_t nonce, const Mitigations& mitigations,
    absl::Span<const UniqueFd> session_maps = {},
    absl::Span<const v1::ParameterValue> parameters = {});

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_INSTANCE_H_
