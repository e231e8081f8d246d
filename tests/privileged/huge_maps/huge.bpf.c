// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// A filter with a map of 64 MB.

#include <bpfgrant/gate.bpf.h>

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 64 * 1024);
  __uint(key_size, 4);
  __uint(value_size, 1024);
} bulk SEC(".maps");

SEC("socket")
int huge(struct __sk_buff* skb) {
  __u32 zero = 0;

  if (!bpfgrant_gate_open()) return bpfgrant_revoked_socket_filter(skb);
  return bpf_map_lookup_elem(&bulk, &zero) ? BPFGRANT_KEEP_ALL : 0;
}

char LICENSE[] SEC("license") = "GPL";
