// What the maps of an instance cost.

#ifndef DAEMON_LOADER_MAP_MEMORY_H_
#define DAEMON_LOADER_MAP_MEMORY_H_

#include <cstdint>

struct bpf_map;
struct bpf_object;

namespace bpfgrant::daemon {

// About how much memory the maps of one instance take. Bytes.
uint64_t EstimateMapBytes(const bpf_object* object);
// The same of one map.
uint64_t EstimateBytes(const bpf_map* map);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_MAP_MEMORY_H_
