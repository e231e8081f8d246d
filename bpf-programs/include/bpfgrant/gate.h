/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the gate's map holds; programs read it (gate.bpf.h, swap.bpf.h), the
 * daemon writes it (daemon/broker/gates.h).
 */
#ifndef BPFGRANT_GATE_H_
#define BPFGRANT_GATE_H_

#include <linux/types.h>

#define BPFGRANT_GATE_SLOTS 32768

/* Set beside the nonce, whose own top bit is always 0: the gate is open and the
   instance's loop is traced. */
#define BPFGRANT_GATE_TRACED (1ULL << 63)

/* One instance's slot. */
struct bpfgrant_gate_entry {
  __u64 nonce; /* of the instance that may run; 0: closed */
  __u64 swaps; /* bit n: which of its two maps the swappable map n is now */
};

/* One loop's steps, in a map of the same slots that its entry writes: it is in
   one while they differ. For loops with swappable maps, since grace periods do
   not wait for who can sleep. */
struct bpfgrant_steps {
  __u32 begun;
  __u32 ended;
};

#endif /* BPFGRANT_GATE_H_ */
