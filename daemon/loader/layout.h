// The layout of BTF types as text: canonical, for hashing, and as C, for a
// header.
//
// It must not know of manifests: whoever calls names the types.

#ifndef DAEMON_LOADER_LAYOUT_H_
#define DAEMON_LOADER_LAYOUT_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

struct btf;

namespace bpfgrant::daemon {

// The layout of type `id`: kinds, sizes, member names and bit offsets, through
// typedefs and qualifiers, which change nothing. Where a pointer leads is not
// part of it. Equal texts mean equal layouts.
std::string CanonicalLayout(const btf* types, uint32_t id);

// The id of the structure, union, enumeration or typedef `name`; 0 if there is
// none.
uint32_t FindStructure(const btf* types, const std::string& name);

// Whether a client needs a declaration for it: false for plain numbers.
bool NeedsDeclaration(const btf* types, uint32_t id);

// C declarations of `ids` and all they are made of, each once, without those
// that <linux/types.h>, <stdbool.h> and <stdint.h> bring.
// kInternal: libbpf cannot print them.
absl::StatusOr<std::string> DeclareInC(const btf* types,
                                       absl::Span<const uint32_t> ids);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_LAYOUT_H_
