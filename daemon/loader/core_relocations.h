// What a program reads of the kernel's types, by its CO-RE relocations, and
// whether a kernel's BTF has it.
//
// libbpf relocates only what it is about to load, so this looks names up as it
// does, and changes nothing: sizes and offsets are libbpf's business.

#ifndef DAEMON_LOADER_CORE_RELOCATIONS_H_
#define DAEMON_LOADER_CORE_RELOCATIONS_H_

#include <string>
#include <string_view>
#include <vector>

struct btf;

namespace bpfgrant::daemon {

struct KernelAccess {
  std::string what;  // "task_struct.io_uring"
  // The program only asks whether it is there (bpf_core_field_exists), and can
  // go another way if not.
  bool asks = false;
  bool found = false;  // in the kernel's
};

// Those of the program `function` in the ELF file `object`, whose BTF is
// `local`, and of the functions that it may call.
std::vector<KernelAccess> FindAccesses(std::string_view object,
                                       const btf* local,
                                       std::string_view function,
                                       const btf* kernel);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_CORE_RELOCATIONS_H_
