// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// Each completion of a NOP has the next one submitted, until there were enough.

#include "nop.h"

struct nop_state {
  __u32 running;
  __u32 left;     // to be prepared
  __u32 busy;     // under way
  __u32 at_once;
  __u64 taken;
};
BPFGRANT_STATE(struct nop_state);

static __always_inline void nop_prepare(struct io_uring* ring,
                                        struct nop_state* state) {
  struct io_uring_sqe* sqe;

  if (!state->left) return;
  sqe = io_uring_get_sqe(ring);
  if (!sqe) return;
  io_uring_prep_nop(sqe);
  state->left -= 1;
  state->busy += 1;
}

static __always_inline void nop_begin(struct io_uring* ring,
                                      struct nop_state* state,
                                      const struct nop_memory* memory) {
  int i;

  state->running = 1;
  state->left = bpfgrant_read_once(memory->count);
  state->at_once = bpfgrant_read_once(memory->at_once);
  state->busy = 0;
  state->taken = 0;
  bpfgrant_for(i, 0, (int)bpfgrant_read_once(memory->lanes)) {
    nop_prepare(ring, state);
  }
}

BPFGRANT_LOOP(nop) {
  struct nop_memory* memory = bpfgrant_memory(loop, struct nop_memory);
  struct nop_state* state = bpfgrant_state(loop, struct nop_state);
  struct io_uring* ring = &loop->ring;
  struct io_uring_cqe* cqe;
  int i;

  if (!memory) return BPFGRANT_STOP_GEOMETRY;
  if (!state->running) nop_begin(ring, state, memory);
  bpfgrant_for(i, 0, (int)state->at_once) {
    if ((!io_uring_cq_ready(ring) || !io_uring_sq_space_left(ring)) &&
        !bpfgrant_go_on(loop))
      break;
    if (io_uring_peek_cqe(ring, &cqe)) break;
    if (bpfgrant_read_once(cqe->user_data) == BPFGRANT_WAKE) break;
    io_uring_cqe_seen(ring, cqe);
    state->taken += 1;
    state->busy -= 1;
    nop_prepare(ring, state);
  }
  if (state->busy) return bpfgrant_wait(loop, 1);
  state->running = 0;
  memory->taken = state->taken;
  return BPFGRANT_STOP_DONE;
}
