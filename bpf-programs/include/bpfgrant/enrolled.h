// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// What the daemon stores with a process that holds a grant, for enrolled.bpf.h.

#ifndef BPFGRANT_ENROLLED_H_
#define BPFGRANT_ENROLLED_H_

#include <linux/types.h>

struct bpfgrant_enrolled {
  __u64 gate_nonce;
  __u32 gate_slot;
  __u32 reserved;
};

#endif  // BPFGRANT_ENROLLED_H_
