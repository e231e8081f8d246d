#include "daemon/loader/map_memory.h"

#include <bpf/libbpf.h>

#include <algorithm>
#include <string_view>

#include "daemon/loader/loop_object.h"
#include "daemon/loader/object.h"
#include "daemon/loader/tracing_object.h"
#include "proto/wire/limits.h"

namespace bpfgrant::daemon {
namespace {

uint64_t RoundUp(uint64_t value, uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

}  // namespace

uint64_t EstimateBytes(const bpf_map* map) {
  if (map == nullptr) return 0;
  const uint64_t entries = bpf_map__max_entries(map);
  const uint64_t value = RoundUp(bpf_map__value_size(map), 8);
  switch (bpf_map__type(map)) {
    case BPF_MAP_TYPE_RINGBUF:
    case BPF_MAP_TYPE_USER_RINGBUF:
      return entries + 3 * 4096;
    case BPF_MAP_TYPE_PERCPU_ARRAY:
      return entries * value * std::max(libbpf_num_possible_cpus(), 1);
    case BPF_MAP_TYPE_LPM_TRIE:
      // struct lpm_trie_node (kernel/bpf/lpm_trie.c), and one between two.
      return entries * 2 * (40 + RoundUp(bpf_map__key_size(map), 8) + value);
    case BPF_MAP_TYPE_HASH:
      // struct htab_elem and a bucket each (kernel/bpf/hashtab.c), about.
      return entries * (48 + RoundUp(bpf_map__key_size(map), 8) + value + 16);
    case BPF_MAP_TYPE_ARRAY_OF_MAPS:
      // With one for each gate a grant has one of them.
      return (entries == kGateSlots ? 1 : entries) *
             EstimateBytes(bpf_map__inner_map(const_cast<bpf_map*>(map)));
    default:
      return entries * value;
  }
}

uint64_t EstimateMapBytes(const bpf_object* object) {
  uint64_t bytes = 0;
  const bpf_map* map;
  bpf_object__for_each_map(map, object) {
    // These are one for all instances.
    const std::string_view name = bpf_map__name(map);
    if (name == kGateMap || name == kLoopTraceMap || name == kLoopStepsMap ||
        name == kEnrolledMap)
      continue;
    if (bpf_map__autocreate(map)) bytes += EstimateBytes(map);
  }
  return bytes;
}

}  // namespace bpfgrant::daemon
