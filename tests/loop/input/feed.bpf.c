// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// A loop whose step drains a user ring buffer when its bell was rung. In the
// kernel only: a loop in the process reads the process's memory.

#include "feed.h"

#include <bpfgrant/loop.h>

struct {
  __uint(type, BPF_MAP_TYPE_USER_RINGBUF);
  __uint(max_entries, 4096);
} input SEC(".maps");

struct feed_state {
  __u64 samples;
  __u64 sum;
  __u32 waiting;
  __u32 ended;
};
BPFGRANT_STATE(struct feed_state);

// What is handed to the callback must be on the stack.
struct feed_run {
  struct feed_state* state;
};

static long take(struct bpf_dynptr* sample, struct feed_run* run) {
  struct feed_state* state = run->state;
  __u64 value = 0;

  if (bpf_dynptr_read(&value, sizeof(value), sample, 0, 0) != 0) return 0;
  if (value == FEED_END) {
    state->ended = 1;
    return 1;
  }
  state->samples += 1;
  state->sum += value;
  return 0;
}

BPFGRANT_LOOP(feed) {
  struct feed_memory* memory = bpfgrant_memory(loop, struct feed_memory);
  struct feed_state* state = bpfgrant_state(loop, struct feed_state);
  struct io_uring_cqe* cqe;
  struct io_uring_sqe* sqe;
  struct feed_run run = {.state = state};

  if (!memory) return BPFGRANT_STOP_GEOMETRY;
  if (io_uring_peek_cqe(&loop->ring, &cqe) == 0) {
    io_uring_cqe_seen(&loop->ring, cqe);
    memory->bells += 1;
    state->waiting = 0;
  }
  memory->last = bpf_user_ringbuf_drain(&input, take, &run, 0);
  memory->samples = state->samples;
  memory->sum = state->sum;
  if (state->ended) return BPFGRANT_STOP_DONE;
  if (!state->waiting) {
    sqe = io_uring_get_sqe(&loop->ring);
    if (!sqe) return BPFGRANT_STOP_GEOMETRY;
    io_uring_prep_read(sqe, bpfgrant_read_once(memory->bell),
                       (void*)(long)bpfgrant_read_once(memory->counter_at),
                       sizeof(memory->counter), 0);
    state->waiting = 1;
  }
  return bpfgrant_wait(loop, 1);
}
