// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// Shows its parameters, of every type, in both places.

#include "chosen.h"

#include <bpfgrant/gate.bpf.h>
#include <bpfgrant/parameter.bpf.h>

BPFGRANT_PARAMETER __s64 level = 5;
BPFGRANT_PARAMETER __u8 color = 1;
BPFGRANT_PARAMETER struct chosen_bytes name = {};
BPFGRANT_PARAMETER struct bpfgrant_prefix source = {};

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct chosen_settings);
} settings SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct chosen_seen);
} seen SEC(".maps");

SEC("socket")
int chosen(struct __sk_buff* skb) {
  if (!bpfgrant_gate_open()) return bpfgrant_revoked_socket_filter(skb);
  __u32 zero = 0;
  struct chosen_settings* set = bpf_map_lookup_elem(&settings, &zero);
  struct chosen_seen* shown = bpf_map_lookup_elem(&seen, &zero);
  if (!set || !shown) return BPFGRANT_KEEP_ALL;
  shown->level = level;
  shown->color = color;
  shown->name = name;
  shown->source = source;
  shown->settings = *set;
  __sync_fetch_and_add(&shown->packets, 1);
  return BPFGRANT_KEEP_ALL;
}

// See bpf-programs/LICENSE for why this says GPL.
char LICENSE[] SEC("license") = "GPL";
