/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What a traced loop's steps look like in the daemon's trace ring buffer; for
 * BPF, C and C++. Only the daemon reads it.
 */
#ifndef BPFGRANT_LOOP_TRACE_H_
#define BPFGRANT_LOOP_TRACE_H_

#include <linux/types.h>

enum bpfgrant_trace_kind {
  BPFGRANT_TRACE_COMPLETION = 1, /* seen at a step's start */
  BPFGRANT_TRACE_REQUEST = 2,    /* handed to the kernel in this step */
  BPFGRANT_TRACE_DECISION = 3,   /* how the step ended */
};

/* The trace ring buffer; a power of two. Bytes. */
#define BPFGRANT_TRACE_BYTES (256 * 1024)

/* Of completions and requests of one step, at most so many are recorded. */
#define BPFGRANT_TRACE_MAX 32

struct bpfgrant_trace_record {
  __u64 nonce; /* of the instance's gate */
  __u64 step;  /* since the instance was attached */
  __u64 at_ns; /* CLOCK_MONOTONIC */
  __u32 kind;
  __s32 result; /* COMPLETION: res. DECISION: the author's answer */
  __u64 user_data; /* COMPLETION, REQUEST */
  __u32 flags;     /* of the completion or request */
  __u32 opcode;    /* REQUEST */
  __s32 fd;        /* REQUEST */
  __u32 length;    /* REQUEST */
  __u64 offset;    /* REQUEST */
  __u32 stop;      /* DECISION: enum bpfgrant_stop; NONE: it goes on */
  __u32 wait_for;  /* DECISION: completions to wait for */
};

#endif /* BPFGRANT_LOOP_TRACE_H_ */
