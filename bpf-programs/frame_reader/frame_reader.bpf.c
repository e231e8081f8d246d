// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// Reads streams of frames, each with a header that says how long it is and whom
// it is for, and announces each frame. README.md says how to use it, and
// frame_reader.h what it and the process share.

#include "frame_reader.h"

#include <bpfgrant/loop.h>

#include "frame_reader_setup.h"
#include "frame_reader_visit.h"

// In the kernel a step goes on with what its requests brought at once. In the
// process that would be a system call more, where one submits and waits.
#ifdef __bpf__
#define FRAME_READER_IN_KERNEL 1
#define FRAME_READER_ROUNDS 64
#else
#define FRAME_READER_IN_KERNEL 0
#define FRAME_READER_ROUNDS 1
#endif

// Connections that one round sees to.
#define FRAME_READER_VISITS 256

// A request came back. What it brought is looked at when there is room to
// announce it.
static __always_inline void take_completion(struct frame_reader_state* state,
                                            const struct io_uring_cqe* cqe) {
  __u64 index = io_uring_cqe_get_data64(cqe);
  struct frame_reader_connection* c;

  if (index >= FRAME_READER_CONNECTIONS) return;
  bpfgrant_checked(index);
  c = &state->connections[index];
  // A completion that the process wrote itself.
  if (!c->armed) return;
  c->armed = 0;
  c->came = 1;
  c->result = bpfgrant_read_once(cqe->res);
  c->queued = 1;
  state->in_flight--;
  frame_reader_put(&state->work, index);
}

static __always_inline void take_completions(struct io_uring* ring,
                                             struct frame_reader_state* state) {
  struct io_uring_cqe* cqe;
  unsigned head, seen = 0;

  io_uring_for_each_cqe(ring, head, cqe) {
    take_completion(state, cqe);
    seen++;
  }
  io_uring_cq_advance(ring, seen);
}

// Puts a connection back that could not go on.
static __always_inline void put_back(struct frame_reader_state* state,
                                     __u32 index, int why) {
  struct frame_reader_connection* c =
      &state->connections[index % FRAME_READER_CONNECTIONS];

  c->queued = 1;
  if (why == VISIT_STARVED) {
    state->totals.starved++;
    frame_reader_put(&state->starved, index);
  } else if (why == VISIT_READY) {
    c->drained = 0;  // once
    frame_reader_put(&state->resting, index);
  } else {
    frame_reader_put(&state->work, index);
  }
}

// Whether it is better to ask again at the next run. There is nothing to read
// now, as it seems, but something for the process to do, which ends this one:
// by then there may be, and a request that need not wait costs half.
static __always_inline bool may_rest(const struct frame_reader_state* state,
                                     __u32 index) {
  const struct frame_reader_connection* c =
      &state->connections[index % FRAME_READER_CONNECTIONS];

  return state->config.stop_after && state->announced + state->gathered != 0 &&
         c->drained &&
         (c->phase == FRAME_READER_LOOK || c->phase == FRAME_READER_HEADER);
}

// Sees to the connections that have something to do. False: the reader of the
// events does not keep up.
static __always_inline bool work(struct bpfgrant_loop* loop,
                                 struct frame_reader_memory* memory,
                                 struct frame_reader_state* state) {
  int n;

  bpfgrant_for(n, 0, FRAME_READER_VISITS) {
    struct io_uring_sqe* sqe;
    __u32 index;
    int next;

    if (frame_reader_empty(&state->work)) break;
    if (!frame_reader_has_room(state) && !frame_reader_flush(loop, state))
      return false;
    if (!io_uring_sq_space_left(&loop->ring)) break;
    index = frame_reader_take(&state->work);
    state->connections[index].queued = 0;
    if (!state->connections[index].open) continue;
    next = bpfgrant_part(loop, frame_reader_visit, memory, index);
    if (next == VISIT_READY && may_rest(state, index)) {
      put_back(state, index, next);
    } else if (next == VISIT_READY) {
      sqe = io_uring_get_sqe(&loop->ring);
      if (!sqe) break;
      bpfgrant_part(loop, frame_reader_request, memory, sqe, index);
    } else if (next != VISIT_ENDED) {
      put_back(state, index, next);
    }
    if (next == VISIT_FULL) return false;
  }
  return true;
}

static __always_inline void publish(struct frame_reader_memory* memory,
                                    struct frame_reader_state* state) {
  memory->totals = state->totals;
}

// Whether the process has to look before it makes sense to go on.
static __always_inline int stop_or_wait(struct bpfgrant_loop* loop,
                                        struct frame_reader_state* state) {
  bool idle = frame_reader_empty(&state->work) &&
              (!state->given || frame_reader_empty(&state->starved));
  bool waits = idle && !io_uring_cq_ready(&loop->ring);

  if (!state->totals.open) return BPFGRANT_STOP_DONE;
  // Nobody but the process can give what some wait for. Of the others something
  // may have completed, which only shows after a step.
  if (waits && !frame_reader_empty(&state->starved) &&
      (!state->in_flight ||
       (state->config.stop_after && state->with_process))) {
    if (state->looked || state->announced || !state->in_flight)
      return BPFGRANT_STOP_PASSED;
    state->looked = 1;
    return bpfgrant_wait(loop, 0);
  }
  if (state->config.stop_after && state->announced &&
      (waits || state->announced >= state->config.stop_after))
    return BPFGRANT_STOP_PASSED;
  return bpfgrant_wait(loop, idle ? 1 : 0);
}

// Whether what a submission brings at once decides if the loop stops. In the
// process it is a system call; where it does not, the wait submits.
static __always_inline bool decides(const struct frame_reader_state* state) {
  return state->config.stop_after && (state->announced + state->gathered != 0 ||
                                      !frame_reader_empty(&state->starved));
}

BPFGRANT_LOOP(frame_reader) {
  struct frame_reader_memory* memory =
      bpfgrant_memory(loop, struct frame_reader_memory);
  struct frame_reader_state* state =
      bpfgrant_state(loop, struct frame_reader_state);
  bool keeps_up = true;
  int result, round;

  if (!memory) return BPFGRANT_STOP_GEOMETRY;
  if (!state->ready && !bpfgrant_part(loop, frame_reader_set_up, memory))
    return -EINVAL;
  state->config.stop_after = bpfgrant_read_once(memory->config.stop_after);
  if (bpfgrant_load_acquire(&memory->command_tail) != state->command_head)
    bpfgrant_part(loop, frame_reader_take_commands, memory);
  if (!state->announced || !state->config.stop_after)
    frame_reader_pour(&state->resting, &state->work);
  bpfgrant_for(round, 0, FRAME_READER_ROUNDS) {
    take_completions(&loop->ring, state);
    if (state->given) {
      // Each of them looks again.
      state->given = 0;
      state->totals.starved = 0;
      frame_reader_pour(&state->starved, &state->work);
    }
    keeps_up = work(loop, memory, state);
    if (!FRAME_READER_IN_KERNEL && !decides(state)) break;
    if (io_uring_submit(&loop->ring) < 0) return BPFGRANT_STOP_SUBMIT;
    if (!keeps_up || !io_uring_cq_ready(&loop->ring)) break;
    if (state->config.stop_after &&
        state->announced + state->gathered >= state->config.stop_after)
      break;
  }
  publish(memory, state);
  // One record for all, as a rule, and so one reader woken once.
  if (!frame_reader_flush(loop, state)) keeps_up = false;
  result = keeps_up ? stop_or_wait(loop, state) : BPFGRANT_STOP_PASSED;
  if (result == BPFGRANT_STOP_NONE) return result;
  state->announced = 0;
  state->looked = 0;
  // What was prepared and not submitted would be forgotten.
  return io_uring_submit(&loop->ring) < 0 ? BPFGRANT_STOP_SUBMIT : result;
}
