// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// A reuseport program for the tests of the catalog: the smallest there is.

#include <bpfgrant/gate.bpf.h>

struct {
  __uint(type, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY);
  __uint(max_entries, 4);
  __type(key, __u32);
  __type(value, __u64);
} sockets SEC(".maps");

SEC("sk_reuseport")
int steer(struct sk_reuseport_md* md) {
  if (!bpfgrant_gate_open()) return bpfgrant_revoked_sk_reuseport();
  __u32 zero = 0;
  bpf_sk_select_reuseport(md, &sockets, &zero, 0);
  return SK_PASS;
}

char LICENSE[] SEC("license") = "GPL";
