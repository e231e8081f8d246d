/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What the test of a loop with swappable maps and its loop share. */
#ifndef TESTS_LOOP_ROTATE_TURNING_H_
#define TESTS_LOOP_ROTATE_TURNING_H_

#include <linux/types.h>

#define TURNING_WORK_MOST ((1 << 23) - 1)

struct turning_memory {
  __u32 work; /* of a step, at most TURNING_WORK_MOST */
  __u32 stop; /* it is to end */
};

/* The one entry of `counts` and of `others`. */
struct turning_count {
  __u64 steps; /* that have begun with this map */
  __u64 work;  /* that they have done, one by one; of `others`: 0 */
};

#endif /* TESTS_LOOP_ROTATE_TURNING_H_ */
