// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// Counts its runs in two maps that belong together, and goes on writing one of
// them for as long as its client wants.

#include <bpfgrant/swap.bpf.h>

#include "turned.h"

#define WORK_MOST (1 << 23)

BPFGRANT_SWAPPABLE(first, 0, {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct turned_count);
});

BPFGRANT_SWAPPABLE(second, 1, {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct turned_count);
});

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __uint(map_flags, BPF_F_MMAPABLE);
  __type(key, __u32);
  __type(value, struct turned_page);
} page SEC(".maps");

static long work(__u32 i, struct turned_count** count) {
  __sync_fetch_and_add(&(*count)->work, 1);
  return 0;
}

static __always_inline void add_run(void* map, struct turned_count** count) {
  __u32 zero = 0;

  *count = bpf_map_lookup_elem(map, &zero);
  if (*count) __sync_fetch_and_add(&(*count)->runs, 1);
}

SEC("socket")
int turned(struct __sk_buff* skb) {
  if (!bpfgrant_gate_open()) return bpfgrant_revoked_socket_filter(skb);
  __u64 swaps = bpfgrant_swaps();
  void* one = bpfgrant_now(first);
  void* other = bpfgrant_now(second);
  struct turned_count* count;
  struct turned_page* wanted;
  __u32 zero = 0;

  if (swaps != bpfgrant_swaps()) {
    one = bpfgrant_now(first);
    other = bpfgrant_now(second);
  }
  if (!one || !other) return BPFGRANT_KEEP_ALL;
  add_run(other, &count);
  add_run(one, &count);
  wanted = bpf_map_lookup_elem(&page, &zero);
  if (count && wanted)
    bpf_loop(wanted->work & (WORK_MOST - 1), work, &count, 0);
  return BPFGRANT_KEEP_ALL;
}

char LICENSE[] SEC("license") = "GPL";
