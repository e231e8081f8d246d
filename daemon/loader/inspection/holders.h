// What whoever holds an fd of a program or a map can do with it, without any
// privilege.

#ifndef DAEMON_LOADER_INSPECTION_HOLDERS_H_
#define DAEMON_LOADER_INSPECTION_HOLDERS_H_

#include <cstdint>
#include <string>

namespace bpfgrant::daemon {

// `type`: enum bpf_prog_type.
std::string WhatHolderOfProgramCanDo(uint32_t type);
// `type`: enum bpf_map_type; `flags`: BPF_F_*.
std::string WhatHolderOfMapCanDo(uint32_t type, uint32_t flags);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_INSPECTION_HOLDERS_H_
