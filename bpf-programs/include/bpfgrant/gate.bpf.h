// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// The gate: what lets the daemon take a program back, whoever holds its fd by
// then. Every program of the catalog includes this file, and its first
// statement asks:
//
//   if (!bpfgrant_gate_open()) return bpfgrant_revoked_socket_filter(skb);
//
// The contract with the loader:
//   - The map `bpfgrant_gate` is one for the whole daemon; the loader puts it
//     in place of the one declared here (bpf_map__reuse_fd). Only the daemon
//     writes it. A program that writes it is refused: the loader first loads
//     each object against a twin of the map that has BPF_F_RDONLY_PROG, where
//     the verifier lets no store pass.
//   - The three variables below are set before the load and frozen with it, so
//     they are constants to the verifier. Left unset, the gate never opens.
//
// Nothing here needs more than Linux 5.5 (BPF_F_MMAPABLE) or vmlinux.h.

#ifndef BPFGRANT_GATE_BPF_H_
#define BPFGRANT_GATE_BPF_H_

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpfgrant/gate.h>
#include <stdbool.h>

// Values of bpfgrant_on_revoke; must be what manifest.proto says (OnRevoke).
#define BPFGRANT_ON_REVOKE_PASS 1
#define BPFGRANT_ON_REVOKE_DROP 2

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, BPFGRANT_GATE_SLOTS);
  __uint(map_flags, BPF_F_MMAPABLE);
  __type(key, __u32);
  __type(value, struct bpfgrant_gate_entry);
} bpfgrant_gate SEC(".maps");

// The loader sets these before the load. They have a section of their own, so
// that its trial can make them, and nothing else, unknown to the verifier: then
// what a program does is seen for every value that they may have.
#define BPFGRANT_GATE_CONSTANT SEC(".rodata.gate")

// This instance's slot.
const volatile __u32 bpfgrant_gate_slot BPFGRANT_GATE_CONSTANT = 0;
// What the slot holds while this instance may run. 0, which a closed slot
// holds, opens nothing. The slot's next tenant has another nonce, so an fd kept
// from a former grant stays dead.
const volatile __u64 bpfgrant_gate_nonce BPFGRANT_GATE_CONSTANT = 0;
// What to answer once the gate is closed. Anything but PASS is DROP.
const volatile __u32 bpfgrant_on_revoke BPFGRANT_GATE_CONSTANT = 0;

// Whether `slot` holds `nonce`. It is read once: the daemon may store to it at
// any moment.
static __always_inline bool bpfgrant_gate_open_at(__u32 slot, __u64 nonce) {
  const volatile struct bpfgrant_gate_entry* gate =
      bpf_map_lookup_elem(&bpfgrant_gate, &slot);

  if (!gate || nonce == 0) return false;
  return (gate->nonce & ~BPFGRANT_GATE_TRACED) == nonce;
}

// Whether this instance may run now.
static __always_inline bool bpfgrant_gate_open(void) {
  return bpfgrant_gate_open_at(bpfgrant_gate_slot, bpfgrant_gate_nonce);
}

// A socket filter answers how many bytes of the packet to keep; 0 drops it.
// All of it is this, and not skb->len, which is 0 for an empty datagram of a
// Unix socket, where the packet starts behind all headers.
#define BPFGRANT_KEEP_ALL 0x7fffffff

// The answer of a revoked socket filter.
static __always_inline int bpfgrant_revoked_socket_filter(
    const struct __sk_buff* skb) {
  (void)skb;
  return bpfgrant_on_revoke == BPFGRANT_ON_REVOKE_PASS ? BPFGRANT_KEEP_ALL : 0;
}

// The answer of a revoked reuseport program. SK_PASS without a selection leaves
// the choice to the kernel's own hash.
static __always_inline int bpfgrant_revoked_sk_reuseport(void) {
  return bpfgrant_on_revoke == BPFGRANT_ON_REVOKE_PASS ? SK_PASS : SK_DROP;
}

#endif  // BPFGRANT_GATE_BPF_H_
