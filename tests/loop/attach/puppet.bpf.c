// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// The loop that an attacker would wish for: it looks at nothing and submits
// whatever its client has put into the submission queue.

#include "puppet.h"

#include <bpfgrant/loop.h>

struct puppet_state {
  __u32 submitted;
  __u32 done;
};
BPFGRANT_STATE(struct puppet_state);

// The client's entries, as they stand.
static __always_inline void submit(struct bpfgrant_loop* loop, __u32 count) {
  int i;

  bpfgrant_for(i, 0, 64) {
    if ((__u32)i >= count || !io_uring_get_sqe(&loop->ring)) break;
  }
}

BPFGRANT_LOOP(puppet) {
  struct puppet_memory* memory = bpfgrant_memory(loop, struct puppet_memory);
  struct puppet_state* state = bpfgrant_state(loop, struct puppet_state);
  struct io_uring* ring = &loop->ring;
  struct io_uring_cqe* cqe;
  unsigned head, count, mode;

  if (!memory) return BPFGRANT_STOP_GEOMETRY;
  io_uring_for_each_cqe(ring, head, cqe) {
    memory->results[state->done % PUPPET_RESULTS] = cqe->res;
    state->done++;
    io_uring_cq_advance(ring, 1);
  }
  memory->done = state->done;
  mode = bpfgrant_read_once(memory->mode);
  count = bpfgrant_read_once(memory->count);
  if (mode == PUPPET_ANSWER) return count;
  if (mode == PUPPET_SPIN) return bpfgrant_wait(loop, 0);
  if (!state->submitted) {
    state->submitted = count;
    state->done = 0;
    submit(loop, count);
  } else if (mode == PUPPET_SUBMIT && state->done >= state->submitted) {
    state->submitted = 0;
    return BPFGRANT_STOP_DONE;
  }
  return bpfgrant_wait(loop, 1);
}
