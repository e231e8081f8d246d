// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// A loop to begin with: as many requests that do nothing as the process wants,
// one after the other. `man 7 bpfgrant-loops` explains it. For BPF, and as the
// native twin, which a client links:
//
//   clang -target bpf -mcpu=v3 -g -O2 -D__TARGET_ARCH_x86 -c counter.bpf.c
//   cc -c counter.bpf.c $(pkg-config --cflags bpfgrant liburing)

#include <bpfgrant/loop.h>

struct counter_memory {
  __u32 wanted; /* the process's */
  __u32 done;   /* the loop's */
};

struct counter_state {
  __u32 begun;
};
BPFGRANT_STATE(struct counter_state);

BPFGRANT_LOOP(counter) {
  struct io_uring* ring = &loop->ring;
  struct counter_memory* memory = bpfgrant_memory(loop, struct counter_memory);
  struct counter_state* state = bpfgrant_state(loop, struct counter_state);
  struct io_uring_sqe* sqe;
  struct io_uring_cqe* cqe;
  unsigned head, seen = 0;

  if (!memory || !state) return BPFGRANT_STOP_GEOMETRY;
  io_uring_for_each_cqe(ring, head, cqe) { seen++; }
  io_uring_cq_advance(ring, seen);
  bpfgrant_write_once(memory->done, bpfgrant_read_once(memory->done) + seen);
  if (state->begun >= bpfgrant_read_once(memory->wanted))
    return BPFGRANT_STOP_DONE;
  sqe = io_uring_get_sqe(ring);
  if (!sqe) return bpfgrant_wait(loop, 1);
  io_uring_prep_nop(sqe);
  state->begun++;
  return bpfgrant_wait(loop, 1);
}
