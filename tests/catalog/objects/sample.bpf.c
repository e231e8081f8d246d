// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// The programs that the tests of the catalog approve and refuse: one that is as
// it should be, and by macro what can be wrong with one.

#ifdef NO_GATE
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>
#else
#ifdef SMALL_GATE
// A gate of another shape, under the gate's name.
#define bpfgrant_gate bpfgrant_gate_of_the_header
#endif
#include <bpfgrant/gate.bpf.h>
#endif

#ifdef SMALL_GATE
#undef bpfgrant_gate
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 16);
  __uint(map_flags, BPF_F_MMAPABLE);
  __type(key, __u32);
  __type(value, __u64);
} bpfgrant_gate SEC(".maps");
#endif

#if defined(PARAMETER_GOOD) || defined(PARAMETER_BAD_VALUE)
#include <bpfgrant/parameter.bpf.h>
BPFGRANT_PARAMETER int level = 5;
#endif

enum sample_kind { SAMPLE_FIRST = 1, SAMPLE_SECOND = 2 };

// The same layout under another order of the file and with other comments.
struct sample_inner {
  __u16 port;
  bool known;
  char tag[5];
};

struct sample_event {
  __u64 at_ns;
  enum sample_kind kind;
#ifdef OTHER_NAME
  __u32 size;
#elif defined(OTHER_TYPE)
  __s32 length;
#else
  __u32 length;
#endif
  struct sample_inner inner[2];
  union {
    __be32 address;
    __u8 bytes[4];
  };
#ifdef WIDER_EVENT
  __u64 more;
#endif
};

struct sample_config {
  __u32 wanted;
  __u32 flags;
};

struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, 64 * 1024);
} events SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 4);
  __uint(map_flags, BPF_F_MMAPABLE);
  __type(key, __u32);
  __type(value, struct sample_config);
} config SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, __u64);
} counters SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 8);
  __type(key, __u32);
  __type(value, __u64);
} orders SEC(".maps");

#if defined(EXTRA_MAP) || defined(SEVERAL_PROGRAMS)
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
#ifdef IMPOSSIBLE_MAP
  __uint(max_entries, 1 << 30);
  __uint(map_flags, 1 << 30);
#else
  __uint(max_entries, 8);
#endif
  __type(key, __u32);
  __type(value, __u64);
} extra SEC(".maps");
#endif

#ifdef PINNED_MAP
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 8);
  __uint(pinning, LIBBPF_PIN_BY_NAME);
  __type(key, __u32);
  __type(value, __u64);
} extra SEC(".maps");
#endif

// A ring buffer names no type; without this the structure is not in the BTF.
const struct sample_event* const sample_event_type = 0;

#ifdef CALLS_IN_FUNCTION
static __noinline int trace(int what) {
  return bpf_trace_printk("%d", 3, what);
}
#endif
#ifdef CALLS_IN_PROGRAM
SEC("?socket")
int trace(struct __sk_buff* skb) { return bpf_trace_printk("%d", 3, skb->len); }
#endif
#ifdef CALLS_KFUNC
extern int bpf_never_allowed(int) __ksym;
#endif

SEC("socket")
int sample(struct __sk_buff* skb) {
#if !defined(NO_GATE) && !defined(GATE_UNUSED)
  if (!bpfgrant_gate_open()) return bpfgrant_revoked_socket_filter(skb);
#endif
  __u32 zero = 0;
  __u64* count = bpf_map_lookup_elem(&counters, &zero);
  if (count) __sync_fetch_and_add(count, 1);
#ifdef OTHER_BODY
  if (count) __sync_fetch_and_add(count, 1);
#endif
#ifdef WRITES_GATE
  __u64* gate = bpf_map_lookup_elem(&bpfgrant_gate, &zero);
  if (gate) *gate = 1;
#endif
#ifdef WRITES_GATE_SOMETIMES
  // For half of all nonces, none of which is a trial's.
  if (!(bpfgrant_gate_nonce & 1)) {
    __u64* other = bpf_map_lookup_elem(&bpfgrant_gate, &zero);
    if (other) *other = 1;
  }
#endif
#ifdef UPDATES_GATE
  __u64 one = 1;
  bpf_map_update_elem(&bpfgrant_gate, &zero, &one, BPF_ANY);
#endif
#ifdef CALLS_HELPER
  bpf_trace_printk("%d", 3, skb->len);
#endif
#ifdef CALLS_IN_FUNCTION
  if (trace(skb->len) > 100) return 0;
#endif
#ifdef CALLS_IN_PROGRAM
  if (trace(skb) > 100) return 0;
#endif
#ifdef CALLS_KFUNC
  if (bpf_never_allowed(skb->len)) return 0;
#endif
#ifdef CALLS_NUMBER
  // A call of kernel function 7, as no compiler writes it.
  asm volatile(".byte 0x85, 0x20, 0, 0, 7, 0, 0, 0" ::
                   : "r0", "r1", "r2", "r3", "r4", "r5");
#endif
#ifdef OUT_OF_BOUNDS
  if (count) count[7] = 1;
#endif
#ifdef PARAMETER_BAD_VALUE
  if (level == 99) {
    __u64* opened = bpf_map_lookup_elem(&bpfgrant_gate, &zero);
    if (opened) *opened = 1;
  }
#endif
#if defined(PARAMETER_GOOD) || defined(PARAMETER_BAD_VALUE)
  return level;
#elif defined(ANSWERS_NOTHING)
  return 0;
#else
  return skb->len;
#endif
}

#ifdef SEVERAL_PROGRAMS
#ifdef STRONG_KFUNC
extern int bpf_never_heard_of(int) __ksym;
#undef bpf_ksym_exists
#define bpf_ksym_exists(function) true
#else
extern int bpf_never_heard_of(int) __ksym __weak;
#endif

SEC("?socket")
int keeps_orders(struct __sk_buff* skb) {
  if (!bpfgrant_gate_open()) return bpfgrant_revoked_socket_filter(skb);
  __u32 zero = 0;
  return bpf_map_lookup_elem(&extra, &zero) ? 1 : 7;
}

SEC("socket")
int ungated(struct __sk_buff* skb) { return skb->len; }

SEC("socket")
int opens_gates(struct __sk_buff* skb) {
  if (!bpfgrant_gate_open()) return bpfgrant_revoked_socket_filter(skb);
  __u32 zero = 0;
  __u64* gate = bpf_map_lookup_elem(&bpfgrant_gate, &zero);
  if (gate) *gate = 1;
  return skb->len;
}

SEC("socket")
int too_new(struct __sk_buff* skb) {
  if (!bpfgrant_gate_open()) return bpfgrant_revoked_socket_filter(skb);
  return bpf_never_heard_of(skb->len);
}

SEC("socket")
int asks_first(struct __sk_buff* skb) {
  if (!bpfgrant_gate_open()) return bpfgrant_revoked_socket_filter(skb);
  return bpf_ksym_exists(bpf_never_heard_of) ? bpf_never_heard_of(skb->len)
                                             : skb->len;
}

SEC("sk_reuseport")
int of_another_type(struct sk_reuseport_md* packet) {
  return packet->len ? SK_PASS : SK_DROP;
}

SEC("never_heard_of")
int of_no_type(void* context) { return context != 0; }
#endif

char LICENSE[] SEC("license") = "GPL";
