// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// A tracing program for the tests of the catalog, and what it can be wrong in.

#include <bpfgrant/enrolled.bpf.h>

#ifdef TRACED_OTHER_TRACEPOINT
#define CREATION "tp_btf/io_uring_register"
#else
#define CREATION "tp_btf/io_uring_create"
#endif

struct traced_count {
  __u64 seen;
};
const struct traced_count* const traced_counted = 0;

struct counts {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 2);
  __type(key, __u32);
  __type(value, struct traced_count);
};
#if defined(TRACED_PLAIN_MAP)
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 2);
  __type(key, __u32);
  __type(value, struct traced_count);
} counts SEC(".maps");
#elif defined(TRACED_FEW_GRANTS)
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
  __uint(max_entries, 4);
  __type(key, __u32);
  __array(values, struct counts);
} counts SEC(".maps");
#else
BPFGRANT_OF_EACH_GRANT(struct counts, counts);
#endif

static __always_inline void count(__u32 slot, __u32 which) {
  void* map = bpf_map_lookup_elem(&counts, &slot);
#ifdef TRACED_PLAIN_MAP
  struct traced_count* found = map;
#else
  struct traced_count* found = map ? bpf_map_lookup_elem(map, &which) : 0;
#endif

  if (found) __sync_fetch_and_add(&found->seen, 1);
}

SEC(CREATION)
int count_created(void* context) {
  const struct bpfgrant_enrolled* grant = bpfgrant_enrolled();

  if (grant) count(grant->gate_slot, 0);
  return 0;
}

#ifdef TRACED_RAW
SEC("raw_tp/io_uring_complete")
#else
SEC("tp_btf/io_uring_complete")
#endif
int count_completed(void* context) {
#ifdef TRACED_ASKS_NOT_WHOM
  if (bpfgrant_gate_open()) count(bpfgrant_gate_slot, 1);
#elif defined(TRACED_WRITES_GATE)
  const struct bpfgrant_enrolled* grant = bpfgrant_enrolled();
  __u32 slot = 0;
  __u64* gate = bpf_map_lookup_elem(&bpfgrant_gate, &slot);

  if (grant && gate) *gate = grant->gate_nonce;
#else
  const struct bpfgrant_enrolled* grant = bpfgrant_enrolled();

  if (grant) count(grant->gate_slot, 1);
#endif
  return 0;
}

char LICENSE[] SEC("license") = "GPL";
