// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// A loop, and by macro each thing that is wrong with one.

#include <bpfgrant/loop.h>
#include <bpfgrant/gate.h>

BPFGRANT_STATE(__u32);

#ifdef OWN_PROGRAM
SEC("socket")
int stowaway(struct __sk_buff* skb) {
  (void)skb;
  return 0;
}
#endif
#ifdef PRIVATE_DATA
__u64 mine __attribute__((used)) SEC(".data.bpfgrant") = 1;
#endif
#ifdef GATE_DATA
const volatile __u64 mine SEC(".rodata.gate") = 1;
#endif
#ifdef ENTRY_SYMBOL
const volatile __u32 bpfgrant_step_budget SEC(".rodata") = 1;
#endif
#ifdef NAMES_GATE
// The entry's own map, by its name.
extern struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, BPFGRANT_GATE_SLOTS);
  __uint(map_flags, BPF_F_MMAPABLE);
  __type(key, __u32);
  __type(value, struct bpfgrant_gate_entry);
} bpfgrant_gate SEC(".maps");
#endif
#ifdef WRITES_GATE
#include <bpfgrant/swap.bpf.h>
#endif
#ifdef HAS_CONSTANT
const volatile __u32 entries = 0;
#endif

#ifdef NO_STEP
__hidden int something_else(void) { return 0; }
char LICENSE[] SEC("license") = "GPL";
#else
BPFGRANT_LOOP(loop_of_tests) {
  __u32* count = bpfgrant_state(loop, __u32);

#ifdef NAMES_GATE
  __u32 key = *count & 1023;
  struct bpfgrant_gate_entry* slot = bpf_map_lookup_elem(&bpfgrant_gate, &key);

  if (slot) slot->nonce = 4711;
#endif
#ifdef WRITES_GATE
  struct bpfgrant_gate_entry* slot = (void*)bpfgrant_gate_here();

  if (slot) slot->nonce = 4711;
#endif
#ifdef PRIVATE_DATA
  mine++;
#endif
#ifdef GATE_DATA
  *count += mine;
#endif
#ifdef HAS_CONSTANT
  *count += entries;
#endif
  if (++*count > 10) return BPFGRANT_STOP_DONE;
  return bpfgrant_wait(loop, 0);
}
#endif
