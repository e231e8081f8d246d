// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0

#include "probe.h"

struct probe_state {
  __u32 phase;
  __u32 at;
  __u64 steps;
};
BPFGRANT_STATE(struct probe_state);

static __always_inline int nop(struct io_uring* ring, __u64 data) {
  struct io_uring_sqe* sqe = io_uring_get_sqe(ring);

  if (!sqe) return 0;
  io_uring_prep_nop(sqe);
  io_uring_sqe_set_data64(sqe, data);
  return 1;
}

static __always_inline int read_into(struct io_uring* ring,
                                     struct probe_memory* memory, unsigned i) {
  struct io_uring_sqe* sqe = io_uring_get_sqe(ring);

  if (!sqe) return 0;
  i %= PROBE_FDS;
  io_uring_prep_read(sqe, bpfgrant_read_once(memory->fds[i]),
                     (void*)(long)(memory->bytes_at + i * PROBE_BYTES),
                     PROBE_BYTES, 0);
  io_uring_sqe_set_data64(sqe, i);
  return 1;
}

// Takes all that is there.
static __always_inline void take(struct io_uring* ring,
                                 struct probe_memory* memory) {
  struct io_uring_cqe* cqe;
  unsigned head;

  io_uring_for_each_cqe(ring, head, cqe) {
    memory->result = cqe->res;
    memory->seen += 1;
    io_uring_cq_advance(ring, 1);
  }
}

static __always_inline int count(struct bpfgrant_loop* loop,
                                 struct probe_memory* memory,
                                 struct probe_state* state) {
  take(&loop->ring, memory);
  if (state->at >= memory->count) return BPFGRANT_STOP_DONE;
  if (io_uring_cq_ready(&loop->ring) == 0 && memory->seen >= state->at) {
    state->at += 1;
    memory->prepared += nop(&loop->ring, state->at);
  }
  return bpfgrant_wait(loop, 1);
}

static __always_inline int together(struct bpfgrant_loop* loop,
                                    struct probe_memory* memory,
                                    struct probe_state* state) {
  int i;

  if (state->phase == 0) {
    state->phase = 1;
    bpfgrant_for(i, 0, PROBE_FDS) {
      memory->prepared += read_into(&loop->ring, memory, i);
    }
    return bpfgrant_wait(loop, PROBE_FDS);
  }
  if (io_uring_cq_ready(&loop->ring) < PROBE_FDS)
    return bpfgrant_wait(loop, PROBE_FDS);
  take(&loop->ring, memory);
  return BPFGRANT_STOP_DONE;
}

static __always_inline int linked(struct bpfgrant_loop* loop,
                                  struct probe_memory* memory,
                                  struct probe_state* state) {
  struct io_uring_sqe* sqe;

  if (state->phase == 0) {
    state->phase = 1;
    sqe = io_uring_get_sqe(&loop->ring);
    if (!sqe) return BPFGRANT_STOP_GEOMETRY;
    io_uring_prep_write(sqe, bpfgrant_read_once(memory->fds[1]),
                        (void*)(long)(memory->bytes_at + PROBE_BYTES),
                        memory->count, 0);
    io_uring_sqe_set_flags(sqe, IOSQE_IO_LINK);
    io_uring_sqe_set_data64(sqe, 1);
    memory->prepared += 1 + read_into(&loop->ring, memory, 0);
    return bpfgrant_wait(loop, 2);
  }
  if (io_uring_cq_ready(&loop->ring) < 2) return bpfgrant_wait(loop, 2);
  take(&loop->ring, memory);
  return BPFGRANT_STOP_DONE;
}

static __always_inline int prepare_for_callbacks(struct bpfgrant_loop* loop,
                                                 struct probe_memory* memory) {
  struct io_uring_sqe* sqe;
  int i;

  bpfgrant_for(i, 0, 16) {
    sqe = io_uring_get_sqe(&loop->ring);
    if (!sqe) break;
    io_uring_prep_nop(sqe);
    bpfgrant_set_callback(sqe, i % 8, 1ULL << 40 | i);
    memory->prepared += 1;
  }
  return bpfgrant_wait(loop, 16);
}

static __always_inline int dispatch(struct bpfgrant_loop* loop,
                                    struct probe_memory* memory,
                                    struct probe_state* state) {
  struct io_uring_cqe* cqe;
  unsigned head;

  if (state->phase == 0) {
    state->phase = 1;
    return prepare_for_callbacks(loop, memory);
  }
  io_uring_for_each_cqe(&loop->ring, head, cqe) {
    memory->sums[bpfgrant_callback(cqe) % 8] += bpfgrant_value(cqe);
    memory->seen += 1;
    io_uring_cq_advance(&loop->ring, 1);
  }
  return memory->seen < 16 ? bpfgrant_wait(loop, 1) : BPFGRANT_STOP_DONE;
}

static __always_inline int choose(struct bpfgrant_loop* loop,
                                  struct probe_memory* memory,
                                  struct probe_state* state) {
  struct io_uring_cqe* cqe;
  unsigned head;

  if (state->phase == 0) {
    state->phase = 1;
    return prepare_for_callbacks(loop, memory);
  }
  io_uring_for_each_cqe(&loop->ring, head, cqe) {
    if (bpfgrant_callback(cqe) % 2) return BPFGRANT_STOP_PASSED;
    memory->sums[bpfgrant_callback(cqe) % 8] += bpfgrant_value(cqe);
    memory->seen += 1;
    io_uring_cq_advance(&loop->ring, 1);
  }
  return memory->seen < 8 ? bpfgrant_wait(loop, 1) : BPFGRANT_STOP_DONE;
}

static __always_inline int submit_too_many(struct bpfgrant_loop* loop) {
#ifdef __bpf__
  int taken = bpfgrant_submit(loop->ring.kernel, PROBE_SQ_ENTRIES + 8);

  return taken == PROBE_SQ_ENTRIES + 8 ? BPFGRANT_STOP_DONE
                                       : BPFGRANT_STOP_SUBMIT;
#else
  nop(&loop->ring, 1);
  return bpfgrant_wait(loop, 0);
#endif
}

static __always_inline void fill(struct bpfgrant_loop* loop,
                                 struct probe_memory* memory, __u32 most) {
  int i;

  bpfgrant_for(i, 0, PROBE_SQ_ENTRIES + 1) {
    if ((__u32)i >= most || !nop(&loop->ring, 100 + i)) break;
    memory->prepared += 1;
  }
}

static __always_inline int pass(struct bpfgrant_loop* loop,
                                struct probe_memory* memory,
                                struct probe_state* state) {
  struct io_uring_cqe* cqe;
  unsigned head;

  if (state->phase == 0) {
    state->phase = 1;
    fill(loop, memory, memory->count);
    return bpfgrant_wait(loop, 1);
  }
  io_uring_for_each_cqe(&loop->ring, head, cqe) {
    if (!bpfgrant_pass(&memory->passed, cqe)) break;
    memory->seen += 1;
    io_uring_cq_advance(&loop->ring, 1);
  }
  return memory->seen < memory->count ? bpfgrant_wait(loop, 1)
                                      : BPFGRANT_STOP_DONE;
}

static __always_inline int leave(struct bpfgrant_loop* loop,
                                 struct probe_memory* memory,
                                 struct probe_state* state) {
  if (state->phase == 0) {
    state->phase = 1;
    fill(loop, memory, memory->count);
    return bpfgrant_wait(loop, memory->count);
  }
  if (state->phase == 2) return BPFGRANT_STOP_DONE;
  if (io_uring_cq_ready(&loop->ring) < memory->count)
    return bpfgrant_wait(loop, memory->count);
  state->phase = 2;
  return BPFGRANT_STOP_PASSED;
}

static __always_inline int serve(struct bpfgrant_loop* loop,
                                 struct probe_memory* memory,
                                 struct probe_state* state, int fds) {
  struct io_uring_cqe* cqe;
  unsigned head;
  int i;

  if (state->phase == 0) {
    state->phase = 1;
    bpfgrant_for(i, 0, fds) {
      memory->prepared += read_into(&loop->ring, memory, i);
    }
  }
  io_uring_for_each_cqe(&loop->ring, head, cqe) {
    unsigned from = io_uring_cqe_get_data64(cqe) % PROBE_FDS;

    memory->result = cqe->res;
    memory->seen += 1;
    if (cqe->res > 0 && memory->bytes[from][0] == 'q') state->phase = 2;
    io_uring_cq_advance(&loop->ring, 1);
    if (state->phase == 1)
      memory->prepared += read_into(&loop->ring, memory, from);
  }
  return state->phase == 2 ? BPFGRANT_STOP_DONE : bpfgrant_wait(loop, fds);
}

static __always_inline int fill_all(struct bpfgrant_loop* loop,
                                    struct probe_memory* memory,
                                    struct probe_state* state) {
  if (state->phase == 0) {
    state->phase = 1;
    if (io_uring_sq_space_left(&loop->ring) != PROBE_SQ_ENTRIES)
      memory->spoilt += 1;
    fill(loop, memory, PROBE_SQ_ENTRIES + 1);
    if (io_uring_sq_space_left(&loop->ring) != 0) memory->spoilt += 1;
    return bpfgrant_wait(loop, 1);
  }
  take(&loop->ring, memory);
  return memory->seen < memory->prepared ? bpfgrant_wait(loop, 1)
                                         : BPFGRANT_STOP_DONE;
}

static __always_inline int submit(struct bpfgrant_loop* loop,
                                  struct probe_memory* memory,
                                  struct probe_state* state) {
  if (state->phase == 0) {
    state->phase = 1;
    fill(loop, memory, 3);
    memory->result = io_uring_submit(&loop->ring);
    if (io_uring_sq_ready(&loop->ring) != 0) memory->spoilt += 1;
    fill(loop, memory, 2);
    return bpfgrant_wait(loop, 5);
  }
  memory->seen = io_uring_cq_ready(&loop->ring);
  io_uring_cq_advance(&loop->ring, memory->seen);
  return BPFGRANT_STOP_DONE;
}

static __always_inline int drop(struct bpfgrant_loop* loop,
                                struct probe_memory* memory) {
  memory->spoilt += io_uring_sq_ready(&loop->ring);
  memory->prepared += nop(&loop->ring, 1);
  return BPFGRANT_STOP_DONE;
}

BPFGRANT_LOOP(probe) {
  struct probe_memory* memory = bpfgrant_memory(loop, struct probe_memory);
  struct probe_state* state = bpfgrant_state(loop, struct probe_state);

  if (!memory) return BPFGRANT_STOP_GEOMETRY;
  memory->steps = ++state->steps;
  switch (bpfgrant_read_once(memory->job)) {
    case PROBE_COUNT:
      return count(loop, memory, state);
    case PROBE_TOGETHER:
      return together(loop, memory, state);
    case PROBE_LINKED:
      return linked(loop, memory, state);
    case PROBE_DISPATCH:
      return dispatch(loop, memory, state);
    case PROBE_PASS:
      return pass(loop, memory, state);
    case PROBE_LEAVE:
      return leave(loop, memory, state);
    case PROBE_CHOOSE:
      return choose(loop, memory, state);
    case PROBE_SERVE:
      return serve(loop, memory, state, 1);
    case PROBE_SERVE_ALL:
      return serve(loop, memory, state, PROBE_FDS);
    case PROBE_FAIL:
      return -(int)(memory->count & 0xfff);
    case PROBE_FILL:
      return fill_all(loop, memory, state);
    case PROBE_SPIN:
      if (state->at++ < memory->count) return bpfgrant_wait(loop, 0);
      return BPFGRANT_STOP_DONE;
    case PROBE_SUBMIT:
      return submit(loop, memory, state);
    case PROBE_SHORT:
      return submit_too_many(loop);
    case PROBE_DROP:
      return drop(loop, memory);
  }
  return -22;  // EINVAL
}
