// What the program of these tests and its client share.

#ifndef TESTS_PRIVILEGED_KINDS_KINDS_H_
#define TESTS_PRIVILEGED_KINDS_KINDS_H_

#include <linux/types.h>

#define KINDS_ENTRIES 8
#define KINDS_RING_BYTES 4096

// Of the LPM trie.
struct kinds_prefix {
  __u32 bits;
  __u8 address[4];
};

// What a run found, in the array `found`, and, as a record, in `events`.
struct kinds_found {
  __u64 runs;
  __u64 array;    // its entry 1, as the client wrote it
  __u64 hash;     // its entry 1; 0: none
  __u64 percpu;   // entry 1 of the processor that ran it
  __u64 trie;     // of 10.1.2.3; 0: none
  __u64 samples;  // that were drained in all
  __u64 sum;      // of their values
};

#endif  // TESTS_PRIVILEGED_KINDS_KINDS_H_
