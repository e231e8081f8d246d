/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The least that a loop can do: one NOP after the other, on several lanes. What
 * the bench `nop` runs; for BPF, C and C++.
 */
#ifndef TESTS_BENCH_LOOPS_NOP_H_
#define TESTS_BENCH_LOOPS_NOP_H_

#include <bpfgrant/loop.h>

#define NOP_SQ_ENTRIES 64
#define NOP_CQ_ENTRIES 128

struct nop_memory {
  __u32 lanes;    /* NOPs under way at once */
  __u32 count;    /* in all */
  __u32 at_once;  /* completions that one step takes at most */
  __u32 reserved;
  __u64 taken; /* written by the loop */
};

#endif /* TESTS_BENCH_LOOPS_NOP_H_ */
