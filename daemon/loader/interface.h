// What a client sees of a program, as a hash and as a C header: the handles,
// and the layout of the structures it finds in them.
//
// Two objects have the same hash exactly if a client built for one can use the
// other: it must not depend on comments, on the order of declarations, on what
// a client never sees, or on the compiler's numbering of types.

#ifndef DAEMON_LOADER_INTERFACE_H_
#define DAEMON_LOADER_INTERFACE_H_

#include <string>

#include "absl/status/statusor.h"
#include "daemon/loader/manifest.h"

struct bpf_object;

namespace bpfgrant::daemon {

struct Interface {
  std::string hash;    // 64 hex digits
  std::string header;  // C and C++; at most kMaxHeaderBytes
};

// The interface of an object that CheckObject found good.
//
// Errors, with the manifest's place: REASON_OBJECT_MISMATCH: a structure that
// the object's BTF does not have. REASON_TOO_LARGE: the header is too long.
// kInternal: libbpf cannot print the types.
absl::StatusOr<Interface> DescribeInterface(const bpf_object* object,
                                            const Manifest& manifest);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_INTERFACE_H_
