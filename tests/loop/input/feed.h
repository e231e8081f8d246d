/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What the test of a loop with a user ring buffer and its loop share. */
#ifndef TESTS_LOOP_INPUT_FEED_H_
#define TESTS_LOOP_INPUT_FEED_H_

#include <linux/types.h>

#define FEED_END (~0ULL) /* a sample that ends the loop */

struct feed_memory {
  __s32 bell;       /* an eventfd: read for each time that samples came */
  __u32 reserved;
  __u64 counter_at; /* where the process has `counter` */
  __u64 counter;
  /* Written by the loop. */
  __u64 samples;
  __u64 sum;
  __u64 bells;
  __s64 last; /* what the last drain answered */
};

#endif /* TESTS_LOOP_INPUT_FEED_H_ */
