// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// Lets packets of at most 512 bytes through, and nothing else.

#include <bpfgrant/gate.bpf.h>

#define MOST_BYTES 512

SEC("socket")
int short_only(struct __sk_buff* skb) {
  if (!bpfgrant_gate_open()) return bpfgrant_revoked_socket_filter(skb);
  return skb->len <= MOST_BYTES ? BPFGRANT_KEEP_ALL : 0;
}

char LICENSE[] SEC("license") = "GPL";
