// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// Copies the first bytes of a socket's packets into a ring buffer and lets all
// of them pass. README.md says what for, and what its holder can do.

#include "packet_sampler.h"

#include <bpf/bpf_endian.h>
#include <bpfgrant/gate.bpf.h>
#include <bpfgrant/parameter.bpf.h>

// Bounds of what the config may ask for.
BPFGRANT_PARAMETER __u32 most_bytes = PACKET_SAMPLER_MAX_BYTES;
BPFGRANT_PARAMETER __u32 least_one_in = 1;

struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, 256 * 1024);
} samples SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __uint(map_flags, BPF_F_MMAPABLE);
  __type(key, __u32);
  __type(value, struct packet_sampler_config);
} config SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct packet_sampler_counters);
} counters SEC(".maps");

// A ring buffer's map names no value type, and a type that no map or global
// names is not in the object's BTF. A constant, for .rodata exists anyway.
const struct packet_sample* const packet_sampler_event = 0;

// The config is the client's to rewrite while this runs: each field is read
// once, and only what was read is checked and used.
static __always_inline bool picked(
    const volatile struct packet_sampler_config* wanted) {
  __u32 one_in = wanted->one_in;

  if (one_in < least_one_in) one_in = least_one_in;

  // At random: a strict every-Nth would let regular traffic step around it.
  return one_in <= 1 || bpf_get_prandom_u32() % one_in == 0;
}

static __always_inline __u32
bytes_to_copy(const struct __sk_buff* skb,
              const volatile struct packet_sampler_config* wanted) {
  __u32 length = wanted->snap_length;
  __u32 most = most_bytes;

  if (most > PACKET_SAMPLER_MAX_BYTES) most = PACKET_SAMPLER_MAX_BYTES;
  if (length == 0 || length > most) length = most;
  if (length > skb->len) length = skb->len;
  return length;
}

static __always_inline void fill(struct packet_sample* sample,
                                 struct __sk_buff* skb, __u32 length) {
  sample->at_ns = bpf_ktime_get_ns();
  sample->length = skb->len;
  sample->protocol = bpf_ntohs((__u16)skb->protocol);
  sample->captured = 0;
  __builtin_memset(sample->reserved, 0, sizeof(sample->reserved));
  __builtin_memset(sample->bytes, 0, sizeof(sample->bytes));

  // The verifier wants 1 <= length <= 64 known of the very register that the
  // call takes. Linux 6.1's learns nothing from length != 0, hence one less;
  // without the barrier clang proves the test needless and drops it.
  __u32 last = length - 1;
  asm volatile("" : "+r"(last));
  if (last >= PACKET_SAMPLER_MAX_BYTES) return;
  length = last + 1;
  if (bpf_skb_load_bytes(skb, 0, sample->bytes, length) == 0)
    sample->captured = length;
}

SEC("socket")
int packet_sampler(struct __sk_buff* skb) {
  if (!bpfgrant_gate_open()) return bpfgrant_revoked_socket_filter(skb);

  __u32 zero = 0;
  const struct packet_sampler_config* wanted =
      bpf_map_lookup_elem(&config, &zero);
  struct packet_sampler_counters* count = bpf_map_lookup_elem(&counters, &zero);
  if (!wanted || !count) return BPFGRANT_KEEP_ALL;

  __sync_fetch_and_add(&count->seen, 1);
  if (!picked(wanted)) return BPFGRANT_KEEP_ALL;

  struct packet_sample* sample =
      bpf_ringbuf_reserve(&samples, sizeof(*sample), 0);
  if (!sample) {
    __sync_fetch_and_add(&count->dropped, 1);
    return BPFGRANT_KEEP_ALL;
  }
  fill(sample, skb, bytes_to_copy(skb, wanted));
  bpf_ringbuf_submit(sample, 0);
  __sync_fetch_and_add(&count->sampled, 1);
  return BPFGRANT_KEEP_ALL;
}

// See ../LICENSE for why this says GPL.
char LICENSE[] SEC("license") = "GPL";
