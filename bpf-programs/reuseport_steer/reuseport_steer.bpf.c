// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// Gives every packet of one connection id to the same socket of a reuseport
// group, whatever address it comes from. README.md says what for, and what its
// holder can do.

#include "reuseport_steer.h"

#include <bpfgrant/gate.bpf.h>
#include <linux/in.h>
#include <linux/udp.h>

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __uint(map_flags, BPF_F_MMAPABLE);
  __type(key, __u32);
  __type(value, struct reuseport_steer_config);
} config SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY);
  __uint(max_entries, REUSEPORT_STEER_MAX_SOCKETS);
  __type(key, __u32);
  __type(value, __u64);
} sockets SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct reuseport_steer_counters);
} counters SEC(".maps");

enum outcome { STEERED, UNCONFIGURED, UNSUITABLE, NO_SOCKET };

// FNV-1a, then Murmur3's last step: multiply-shift goes by the upper bits,
// which FNV alone mixes badly for short ids. Both are public and short, so that
// a server can choose ids that lead to the socket it likes.
static __always_inline __u32 hash_of(const __u8* id, __u32 length, __u32 seed) {
  __u32 hash = 2166136261u ^ seed;

#pragma unroll
  for (__u32 i = 0; i < REUSEPORT_STEER_MAX_BYTES; ++i) {
    if (i < length) hash = (hash ^ id[i]) * 16777619u;
  }
  hash ^= hash >> 16;
  hash *= 0x85ebca6bu;
  hash ^= hash >> 13;
  hash *= 0xc2b2ae35u;
  hash ^= hash >> 16;
  return hash;
}

// The config is the client's to rewrite while this runs: `wanted` is a copy.
static __always_inline enum outcome steer(
    struct sk_reuseport_md* packet,
    const struct reuseport_steer_config* wanted) {
  __u32 length = wanted->length;
  __u32 offset = wanted->offset;
  __u8 id[REUSEPORT_STEER_MAX_BYTES] = {};
  __u8 first;

  if (wanted->sockets == 0 || wanted->sockets > REUSEPORT_STEER_MAX_SOCKETS)
    return UNCONFIGURED;
  if (packet->ip_protocol != IPPROTO_UDP) return UNSUITABLE;
  if (wanted->long_offset != 0) {
    if (bpf_skb_load_bytes(packet, sizeof(struct udphdr), &first, 1) != 0)
      return UNSUITABLE;
    if (first & 0x80) offset = wanted->long_offset;
  }
  // Beyond any packet; and the sum below cannot wrap.
  if (offset > 0xffff) return UNCONFIGURED;
  // The verifier wants 1 <= length <= 20 known of the very register that the
  // call takes. Linux 6.1's learns nothing from length != 0, hence one less.
  __u32 last = length - 1;
  asm volatile("" : "+r"(last));
  if (last >= REUSEPORT_STEER_MAX_BYTES) return UNCONFIGURED;
  length = last + 1;
  if (bpf_skb_load_bytes(packet, sizeof(struct udphdr) + offset, id, length) !=
      0)
    return UNSUITABLE;

  __u32 slot = (__u64)hash_of(id, length, wanted->seed) * wanted->sockets >> 32;
  if (bpf_sk_select_reuseport(packet, &sockets, &slot, 0) != 0)
    return NO_SOCKET;
  return STEERED;
}

SEC("sk_reuseport")
int reuseport_steer(struct sk_reuseport_md* packet) {
  if (!bpfgrant_gate_open()) return bpfgrant_revoked_sk_reuseport();

  __u32 zero = 0;
  const volatile struct reuseport_steer_config* shared =
      bpf_map_lookup_elem(&config, &zero);
  struct reuseport_steer_counters* count =
      bpf_map_lookup_elem(&counters, &zero);
  if (!shared || !count) return SK_PASS;
  struct reuseport_steer_config wanted = {
      .offset = shared->offset,
      .long_offset = shared->long_offset,
      .length = shared->length,
      .sockets = shared->sockets,
      .seed = shared->seed,
  };

  enum outcome outcome = steer(packet, &wanted);
  __sync_fetch_and_add(&count->seen, 1);
  if (outcome == STEERED)
    __sync_fetch_and_add(&count->steered, 1);
  else if (outcome == UNCONFIGURED)
    __sync_fetch_and_add(&count->unconfigured, 1);
  else if (outcome == UNSUITABLE)
    __sync_fetch_and_add(&count->unsuitable, 1);
  else
    __sync_fetch_and_add(&count->no_socket, 1);
  // Without a selection this leaves the choice to the kernel's own hash.
  return SK_PASS;
}

// See ../LICENSE for why this says GPL.
char LICENSE[] SEC("license") = "GPL";
