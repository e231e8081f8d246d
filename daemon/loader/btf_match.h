// How a type in an object's BTF and one in a kernel's match, as libbpf has it
// when it relocates a program. Either may be damaged: every walk ends.

#ifndef DAEMON_LOADER_BTF_MATCH_H_
#define DAEMON_LOADER_BTF_MATCH_H_

#include <cstdint>
#include <string_view>

struct btf;
struct btf_type;

namespace bpfgrant::daemon {

// A type of one of them.
struct BtfPlace {
  const btf* types = nullptr;
  uint32_t id = 0;

  // Null if there is none.
  const btf_type* get() const;
  // Without typedefs, const and their like.
  BtfPlace Bare() const;
  std::string_view name() const;
};

// "task_struct" of "task_struct___old": what follows is the author's.
std::string_view EssentialName(std::string_view name);

// Whether a name found in a kernel can be what is looked for: same kind.
bool SameKind(const btf_type* one, const btf_type* other);

// Whether what a program takes for `local` can be read where the kernel has
// `kernels`.
bool FieldsMatch(BtfPlace local, BtfPlace kernels, int depth = 0);

// Whether a function of type `local` can be called where the kernel's is of
// type `kernels` (both FUNC_PROTO), or a pointer to one stands for the other.
bool PrototypesMatch(BtfPlace local, BtfPlace kernels, int depth = 0);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_BTF_MATCH_H_
