// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// The instance's own slot of the gate, by instructions that the loader knows
// again (daemon/loader/swap.cc). For swap.bpf.h and the entry of loops.

#ifndef BPFGRANT_GATE_HERE_BPF_H_
#define BPFGRANT_GATE_HERE_BPF_H_

#include <bpfgrant/gate.bpf.h>

#define BPFGRANT_GATE_HERE                                              \
  __attribute__((noinline)) const volatile struct bpfgrant_gate_entry*  \
  bpfgrant_gate_here(void) {                                            \
    register void* here asm("r0");                                      \
    asm volatile(                                                       \
        "r1 = %[slot] ll\n"                                             \
        "r1 = *(u32*)(r1 + 0)\n"                                        \
        "*(u32*)(r10 - 4) = r1\n"                                       \
        "r2 = r10\n"                                                    \
        "r2 += -4\n"                                                    \
        "r1 = %[gate] ll\n"                                             \
        "call %[lookup]\n"                                              \
        : "=r"(here)                                                    \
        : [slot] "i"(&bpfgrant_gate_slot), [gate] "i"(&bpfgrant_gate),  \
          [lookup] "i"(BPF_FUNC_map_lookup_elem)                        \
        : "r1", "r2", "r3", "r4", "r5", "memory");                      \
    return here;                                                        \
  }

#endif  // BPFGRANT_GATE_HERE_BPF_H_
