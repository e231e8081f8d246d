/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What the tests of user ring buffers and their program share. */
#ifndef TESTS_PRIVILEGED_USER_RING_BUFFER_DRAINER_H_
#define TESTS_PRIVILEGED_USER_RING_BUFFER_DRAINER_H_

#include <linux/types.h>

/* Room for more samples than the kernel takes in one run, and for one that is
   larger than it hands to a program. */
#define DRAINER_BYTES (32 * 1024 * 1024)

/* Mapped by the client. */
struct drainer_page {
  /* What the client wants. */
  __u64 flags;      /* of bpf_user_ringbuf_drain */
  __u32 stop_after; /* samples, then the callback ends the drain; 0: never */
  __u32 spin;       /* turns that each sample takes */
  /* What came of the last run, and of all. */
  __s64 last;
  __u64 runs;
  __u64 busy;    /* runs that found another one */
  __u64 samples; /* that the callback saw */
  __u64 bytes;   /* of these */
  __u64 first;   /* the first 8 bytes of the last sample */
  __u64 torn;    /* samples whose first 8 bytes were others the second time */
};

#endif /* TESTS_PRIVILEGED_USER_RING_BUFFER_DRAINER_H_ */
