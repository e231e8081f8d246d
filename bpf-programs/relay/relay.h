/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What a process and the loop `relay` share: interface relay/1. For BPF, C and
 * C++. No structure has a hole.
 */
#ifndef BPFGRANT_RELAY_H_
#define BPFGRANT_RELAY_H_

#include <bpfgrant/loop_order.h>
#include <linux/types.h>

#define RELAY_PAIRS 64
#define RELAY_BUFFER (32U << 10) /* of each direction, in bytes */

enum relay_flags {
  /* The fds are indexes of the ring's registered files. */
  RELAY_FIXED_FILES = 1,
};

/* Written by the process before the first run, and read once at its begin. */
struct relay_config {
  __u64 memory; /* the address of this memory in the process */
  __u32 flags;  /* enum relay_flags */
  __u32 reserved;
};

/* Written by the loop. */
struct relay_direction {
  __u64 received;
  __u64 sent;  /* less than `received` only if sending failed */
  __s32 error; /* errno of the first request that failed; 0: none did */
  __u32 ended; /* nothing more will move */
};

struct relay_pair {
  __s32 fds[2]; /* the process's, to be set before the pair is opened */
  __u32 ended;  /* both directions; the process may close the sockets */
  __u32 reserved;
  struct relay_direction directions[2]; /* [0] is from fds[0] to fds[1] */
};

struct relay_memory {
  struct relay_config config;
  __u32 open_tail; /* the process's */
  __u32 open_head; /* the loop's */
  __u32 opened[RELAY_PAIRS];
  struct relay_pair pairs[RELAY_PAIRS];
  __u8 buffers[2 * RELAY_PAIRS][RELAY_BUFFER] __attribute__((aligned(4096)));
};

#ifndef __bpf__

/* Has the loop relay between two sockets from its next step on; one thread at a
   time. False: the number is wrong, or too many were opened that the loop has
   not yet seen. A loop that sleeps has to be woken for it. */
static inline int relay_open(struct relay_memory* memory, __u32 pair, int one,
                             int other) {
  const __u32 tail = memory->open_tail;

  if (pair >= RELAY_PAIRS ||
      tail - bpfgrant_load_acquire(&memory->open_head) >= RELAY_PAIRS)
    return 0;
  memory->pairs[pair].fds[0] = one;
  memory->pairs[pair].fds[1] = other;
  memory->pairs[pair].ended = 0;
  memory->opened[tail % RELAY_PAIRS] = pair;
  bpfgrant_store_release(&memory->open_tail, tail + 1);
  return 1;
}

#endif

#endif /* BPFGRANT_RELAY_H_ */
