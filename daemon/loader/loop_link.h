// From an author's object to a loop: our entry linked in front of it.

#ifndef DAEMON_LOADER_LOOP_LINK_H_
#define DAEMON_LOADER_LOOP_LINK_H_

#include <string_view>

#include "absl/status/statusor.h"
#include "daemon/loader/safe_file.h"

namespace bpfgrant::daemon {

// The function that an author's object defines, and the one program of what
// becomes of it.
inline constexpr char kLoopStep[] = "bpfgrant_step";
inline constexpr char kLoopEntry[] = "bpfgrant_loop";

// Links `author` behind the entry (bpf-programs/loop_entry), with libbpf's
// linker, in a child process: the linker was not made for files that want to
// harm it. The result is sealed.
//
// REASON_OBJECT_MISMATCH: they do not link, with libbpf's words; or the object
// brings programs of its own, no `bpfgrant_step`, or data where the entry's
// private data is. kInternal: the errno of a call that failed.
absl::StatusOr<SealedBytes> LinkLoop(std::string_view author);

// The entry's own object.
std::string_view LoopEntryObject();

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_LOOP_LINK_H_
