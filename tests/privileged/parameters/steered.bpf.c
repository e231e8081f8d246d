// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// Gives every connection to the listener that its holder chose.

#include <bpfgrant/gate.bpf.h>

struct {
  __uint(type, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY);
  __uint(max_entries, 2);
  __type(key, __u32);
  __type(value, __u64);
} listeners SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 2);
  __type(key, __u32);
  __type(value, __u64);
} chosen SEC(".maps");

SEC("sk_reuseport")
int steered(struct sk_reuseport_md* packet) {
  if (!bpfgrant_gate_open()) return bpfgrant_revoked_sk_reuseport();
  __u32 zero = 0;
  __u32 found =
      bpf_sk_select_reuseport(packet, &listeners, &zero, 0) == 0 ? 1 : 0;
  __u64* count = bpf_map_lookup_elem(&chosen, &found);
  if (count) __sync_fetch_and_add(count, 1);
  return SK_PASS;
}

// See bpf-programs/LICENSE for why this says GPL.
char LICENSE[] SEC("license") = "GPL";
