/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * A loop that does what a test of the client library asks for. For BPF, C and
 * C++.
 */
#ifndef TESTS_LOOP_CLIENT_PROBE_H_
#define TESTS_LOOP_CLIENT_PROBE_H_

#include <bpfgrant/loop.h>

#define PROBE_FDS 4
#define PROBE_BYTES 64
#define PROBE_SQ_ENTRIES 64
#define PROBE_CQ_ENTRIES 128

enum probe_job {
  PROBE_COUNT,     /* `count` NOPs, one a step; then DONE */
  PROBE_TOGETHER,  /* a read of each fd; waits for all of them; DONE */
  PROBE_LINKED,    /* a write of `count` bytes to fd 1, then a read of fd 0 */
  PROBE_DISPATCH,  /* NOPs for several callbacks with values; DONE */
  PROBE_PASS,      /* `count` NOPs, their completions into `passed`; DONE */
  PROBE_LEAVE,     /* `count` NOPs, their completions left; PASSED, then DONE */
  PROBE_CHOOSE,    /* NOPs for callbacks; the odd ones' are the process's */
  PROBE_SERVE,     /* reads fd 0 again and again, until it reads a 'q' */
  PROBE_SERVE_ALL, /* reads all fds, waits for all of them; as SERVE */
  PROBE_FAIL,      /* answers -count */
  PROBE_FILL,      /* prepares as many NOPs as there is room for; DONE */
  PROBE_SPIN,      /* goes on without waiting for anything, `count` times */
  PROBE_SUBMIT,    /* submits by itself, in the step; DONE */
  PROBE_SHORT,     /* in the kernel: submits more than the ring can hold */
  PROBE_DROP,      /* prepares a NOP and stops; the next step: how many wait */
};

struct probe_memory {
  __u32 job; /* enum probe_job */
  __u32 count;
  __s32 fds[PROBE_FDS];
  __u64 bytes_at; /* where the process has `bytes` */
  /* Written by the loop. */
  __u64 steps;
  __u64 seen;     /* completions */
  __u64 prepared; /* requests */
  __u64 spoilt;   /* completions with an unexpected result */
  __s32 result;   /* the last one */
  __u32 reserved;
  __u64 sums[8]; /* DISPATCH, CHOOSE: by callback */
  char bytes[PROBE_FDS][PROBE_BYTES];
  struct bpfgrant_cqe_queue passed;
};

#endif /* TESTS_LOOP_CLIENT_PROBE_H_ */
