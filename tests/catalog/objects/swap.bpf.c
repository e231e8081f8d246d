// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// A program with a swappable map, as it should be, and by macro what can be
// wrong with one.

#include <bpfgrant/swap.bpf.h>

#define COUNTS                          \
  {                                     \
    __uint(type, BPF_MAP_TYPE_ARRAY);   \
    __uint(max_entries, 4);             \
    __type(key, __u32);                 \
    __type(value, __u64);               \
  }

#ifdef SWAP_OTHER_NUMBER
BPFGRANT_SWAPPABLE(counts, 1, COUNTS);
#elif defined(SWAP_FILLED)
// The macro's own, but for the values.
struct bpfgrant_swappable_counts COUNTS;
struct bpfgrant_swappable_counts reached SEC(".maps");
#elif defined(SWAP_OF_THREE)
struct bpfgrant_swappable_counts COUNTS;
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
  __uint(max_entries, 3);
  __type(key, __u32);
  __array(values, struct bpfgrant_swappable_counts);
} counts SEC(".maps");
#elif defined(SWAP_PLAIN)
struct COUNTS counts SEC(".maps");
#else
BPFGRANT_SWAPPABLE(counts, 0, COUNTS);
#endif

#ifdef SWAP_FILLED
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
  __uint(max_entries, 2);
  __type(key, __u32);
  __array(values, struct bpfgrant_swappable_counts);
} counts SEC(".maps") = {.values = {&reached}};
#endif

#ifdef SWAP_BY_ITSELF
static __attribute__((noinline)) void* by_itself(__u32 which) {
  return bpf_map_lookup_elem(&counts, &which);
}
#endif

SEC("socket")
int swapped(struct __sk_buff* skb) {
  if (!bpfgrant_gate_open()) return bpfgrant_revoked_socket_filter(skb);
  __u32 zero = 0;
  __u64* count;
  void* now;

#if defined(SWAP_FILLED) || defined(SWAP_OF_THREE)
  now = bpf_map_lookup_elem(&counts, &zero);
#elif defined(SWAP_PLAIN)
  now = &counts;
#elif defined(SWAP_UNUSED)
  (void)bpfgrant_now_counts;
  now = 0;
#elif defined(SWAP_BY_ITSELF)
  now = bpfgrant_now(counts);
  if (!now) now = by_itself(skb->len & 1);
#else
  now = bpfgrant_now(counts);
#endif
  if (!now) return BPFGRANT_KEEP_ALL;
  count = bpf_map_lookup_elem(now, &zero);
  if (count) __sync_fetch_and_add(count, 1);
  return BPFGRANT_KEEP_ALL;
}

char LICENSE[] SEC("license") = "GPL";
