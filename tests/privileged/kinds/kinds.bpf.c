// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// Looks at a map of each kind that a client can be handed, and says what it
// found.

#include <bpfgrant/gate.bpf.h>

#include "kinds.h"

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, KINDS_ENTRIES);
  __type(key, __u32);
  __type(value, __u64);
} array SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, KINDS_ENTRIES);
  __type(key, __u32);
  __type(value, __u64);
} hash SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, KINDS_ENTRIES);
  __type(key, __u32);
  __type(value, __u64);
} percpu SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_LPM_TRIE);
  __uint(max_entries, KINDS_ENTRIES);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct kinds_prefix);
  __type(value, __u64);
} trie SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, KINDS_RING_BYTES);
} events SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_USER_RINGBUF);
  __uint(max_entries, KINDS_RING_BYTES);
} input SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __uint(map_flags, BPF_F_MMAPABLE);
  __type(key, __u32);
  __type(value, struct kinds_found);
} found SEC(".maps");

static long take(struct bpf_dynptr* sample, struct kinds_found** into) {
  __u64 value = 0;

  if (bpf_dynptr_read(&value, sizeof(value), sample, 0, 0) != 0) return 0;
  (*into)->samples += 1;
  (*into)->sum += value;
  return 0;
}

static __always_inline __u64 value_of(const __u64* value) {
  return value ? *value : 0;
}

SEC("socket")
int kinds(struct __sk_buff* skb) {
  if (!bpfgrant_gate_open()) return bpfgrant_revoked_socket_filter(skb);
  struct kinds_prefix prefix = {.bits = 32, .address = {10, 1, 2, 3}};
  struct kinds_found* into;
  __u32 zero = 0, one = 1;

  into = bpf_map_lookup_elem(&found, &zero);
  if (!into) return BPFGRANT_KEEP_ALL;
  into->runs += 1;
  into->array = value_of(bpf_map_lookup_elem(&array, &one));
  into->hash = value_of(bpf_map_lookup_elem(&hash, &one));
  into->percpu = value_of(bpf_map_lookup_elem(&percpu, &one));
  into->trie = value_of(bpf_map_lookup_elem(&trie, &prefix));
  bpf_user_ringbuf_drain(&input, take, &into, 0);
  bpf_ringbuf_output(&events, into, sizeof(*into), 0);
  return BPFGRANT_KEEP_ALL;
}

char LICENSE[] SEC("license") = "GPL";
