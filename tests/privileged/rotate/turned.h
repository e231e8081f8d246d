// What the program of these tests and its client share.

#ifndef TESTS_PRIVILEGED_ROTATE_TURNED_H_
#define TESTS_PRIVILEGED_ROTATE_TURNED_H_

#include <linux/types.h>

// The one entry of `page`.
struct turned_page {
  __u64 work;  // what a run does, below 1 << 23
};

// The one entry of `first` and `second`.
struct turned_count {
  __u64 runs;  // that have begun with this map
  __u64 work;  // that they have done, one by one; of `second`: 0
};

#endif  // TESTS_PRIVILEGED_ROTATE_TURNED_H_
