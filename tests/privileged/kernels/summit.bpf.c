// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// What only the newest kernels have: its clients have to be able to do without.

#include <bpfgrant/gate.bpf.h>

extern int bpf_strncasecmp(const char* one, const char* other,
                           __u64 most) __ksym;

static const char one[] = "summit", other[] = "SUMMIT";

SEC("socket")
int summit(struct __sk_buff* skb) {
  if (!bpfgrant_gate_open()) return bpfgrant_revoked_socket_filter(skb);
  return bpf_strncasecmp(one, other, sizeof(one)) == 0 ? skb->len : 0;
}

char LICENSE[] SEC("license") = "GPL";
