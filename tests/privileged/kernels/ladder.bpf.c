// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// One program for all kernels: each function does with what its kernels have,
// the last with what all have. What it answers says which one runs.

#include "ladder.h"

#include <bpfgrant/gate.bpf.h>

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __uint(map_flags, BPF_F_MMAPABLE);
  __type(key, __u32);
  __type(value, struct ladder_page);
} page SEC(".maps");

// In kernels from 6.4, 6.17 and 7.0 on.
extern int bpf_dynptr_from_skb(struct __sk_buff* skb, __u64 flags,
                               struct bpf_dynptr* into) __ksym __weak;
extern int bpf_strnlen(const char* text, __u64 most) __ksym __weak;
extern int bpf_strncasecmp(const char* one, const char* other,
                           __u64 most) __ksym __weak;

static const char text[] = "ladder";

static int answer(struct __sk_buff* skb, __u32 rung) {
  if (!bpfgrant_gate_open()) return bpfgrant_revoked_socket_filter(skb);
  __u32 zero = 0;
  struct ladder_page* shown = bpf_map_lookup_elem(&page, &zero);
  if (shown) shown->rung = rung;
  return skb->len;
}

SEC("socket")
int newest(struct __sk_buff* skb) {
  if (bpf_strncasecmp(text, text, sizeof(text)) != 0) return 0;
  return answer(skb, LADDER_NEWEST);
}

SEC("socket")
int newer(struct __sk_buff* skb) {
  if (bpf_strnlen(text, sizeof(text)) != sizeof(text) - 1) return 0;
  return answer(skb, LADDER_NEWER);
}

SEC("socket")
int newish(struct __sk_buff* skb) {
  struct bpf_dynptr packet;
  if (bpf_dynptr_from_skb(skb, 0, &packet) != 0) return 0;
  return answer(skb, LADDER_NEWISH);
}

SEC("socket")
int plain(struct __sk_buff* skb) { return answer(skb, LADDER_PLAIN); }

char LICENSE[] SEC("license") = "GPL";
