/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What a loop tells the process that runs it, and what that process may ask of
 * it: one page, the value of the grant's handle `status`. For BPF, C and C++.
 *
 * The page is mapped by the process, which can write all of it at any moment.
 * Nothing in it protects anybody: a process that writes nonsense deceives
 * itself.
 */
#ifndef BPFGRANT_LOOP_STATUS_H_
#define BPFGRANT_LOOP_STATUS_H_

#include <linux/types.h>

/* Why a loop came back to user space. */
enum bpfgrant_stop {
  BPFGRANT_STOP_NONE = 0,     /* it did not; it runs, or never did */
  BPFGRANT_STOP_DONE = 1,     /* there is nothing more for it to do */
  BPFGRANT_STOP_PASSED = 2,   /* it left completions, or events,
                                 for user space */
  BPFGRANT_STOP_ERROR = 3,    /* `detail` is -errno, of the author's choice */
  BPFGRANT_STOP_IDLE = 4,     /* BPFGRANT_NO_WAIT, and it would have waited */
  BPFGRANT_STOP_BUDGET = 5,   /* the manifest's step_budget; enter again */
  BPFGRANT_STOP_WOKEN = 6,    /* by a completion with BPFGRANT_WAKE */
  BPFGRANT_STOP_REVOKED = 7,  /* the gate is closed */
  BPFGRANT_STOP_TASK = 8,     /* this task has no io_uring of its own: it got
                                 the ring by execve(2) or from another */
  BPFGRANT_STOP_GEOMETRY = 9, /* the ring, or its memory, is smaller than the
                                 manifest says */
  BPFGRANT_STOP_SUBMIT = 10,  /* a submission fell short; `detail` is -errno,
                                 or how many requests the kernel took */
};

/* Bits of `control`. */
#define BPFGRANT_NO_WAIT 1U /* stop with IDLE rather than sleep */

/*
 * user_data of a completion that is no request's: whoever posts it (with
 * IORING_OP_MSG_RING, from another ring) has the loop stop with WOKEN, and its
 * res becomes `detail`. No request of a loop may use it.
 */
#define BPFGRANT_WAKE (~0ULL)

struct bpfgrant_loop_status {
  /* Written by the loop. */
  __u32 stop;        /* enum bpfgrant_stop */
  __s32 detail;      /* of `stop` */
  __u64 steps;       /* calls of the author's function */
  __u64 completions; /* taken from the completion queue */
  __u64 requests;    /* handed to the kernel */
  __u64 enters;      /* times that it began, after a stop */
  /* Written by the process. */
  __u32 control;
  __u32 reserved[5];
};

#endif /* BPFGRANT_LOOP_STATUS_H_ */
