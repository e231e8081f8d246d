/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The memory of `puppet`, a loop that does what its client says. */
#ifndef TESTS_LOOP_ATTACH_PUPPET_H_
#define TESTS_LOOP_ATTACH_PUPPET_H_

#include <linux/types.h>

enum {
  PUPPET_SUBMIT = 0, /* submit `count` entries as they stand, await them */
  PUPPET_SPIN = 1,   /* go on and on without waiting */
  PUPPET_SLEEP = 2,  /* submit as above, then wait for one completion more */
  PUPPET_ANSWER = 3, /* answer `count` */
};

#define PUPPET_RESULTS 64

struct puppet_memory {
  __u32 mode;
  __u32 count;
  __u32 done; /* completions so far */
  __u32 reserved;
  __s32 results[PUPPET_RESULTS]; /* of those, in their order */
};

#endif /* TESTS_LOOP_ATTACH_PUPPET_H_ */
