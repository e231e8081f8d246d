/* What ladder.bpf.c tells its clients. */

#ifndef TESTS_PRIVILEGED_KERNELS_LADDER_H_
#define TESTS_PRIVILEGED_KERNELS_LADDER_H_

#include <linux/types.h>

enum ladder_rung {
  LADDER_NONE,
  LADDER_PLAIN,
  LADDER_NEWISH,
  LADDER_NEWER,
  LADDER_NEWEST,
};

struct ladder_page {
  __u32 rung; /* of the function that ran last */
};

#endif /* TESTS_PRIVILEGED_KERNELS_LADDER_H_ */
