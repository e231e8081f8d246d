// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// Reads streams of frames, each with a header that says how long it is and whom
// it is for, and announces each frame. README.md says how to use it, and
// frame_reader.h what it and the process share.

#include "frame_reader.h"

#include <bpfgrant/loop.h>

#include "frame_reader_setup.h"

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

BPFGRANT_PART(frame_reader_end, struct frame_reader_memory* memory,
              __u32 index) {
  struct frame_reader_state* state =
      bpfgrant_state(loop, struct frame_reader_state);
  struct frame_reader_connection* c;

  if (!memory || index >= FRAME_READER_CONNECTIONS) return 0;
  bpfgrant_checked(index);
  c = &state->connections[index];
  frame_reader_drop_chunk(state, c);
  if (c->phase == FRAME_READER_BODY) frame_reader_put_slab(state, c->slab);
  if (c->phase == FRAME_READER_LAND)
    frame_reader_drop_lot(state, c, &memory->desks[index]);
  c->open = 0;
  state->totals.open--;
  return 0;
}

// Why there is no more to come, announced.
static __always_inline void announce_end(struct frame_reader_state* state,
                                         struct frame_reader_connection* c,
                                         __u32 index) {
  __u32 unfinished = c->have;

  if (c->result < 0 || (__u32)c->result > c->asked) {
    frame_reader_announce(state, FRAME_ERROR, index, 0,
                          c->result < 0 ? -c->result : EPROTO, 0);
    return;
  }
  if (state->config.mode == FRAME_READER_BULK)
    unfinished = c->end - c->start;
  else if (c->phase == FRAME_READER_LOOK)
    unfinished = 0;
  else if (c->phase == FRAME_READER_BODY)
    unfinished += sizeof(struct frame_header);
  frame_reader_announce(state, FRAME_END, index, 0, unfinished, 0);
}

enum visit {
  VISIT_AGAIN,   // it has more to do
  VISIT_FULL,    // it waits for room in the ring buffer
  VISIT_STARVED, // it waits for a slab or a chunk
  VISIT_READY,   // its next request can be made
  VISIT_ENDED,
};

// What a request of mode DIRECT brought.
static __always_inline void direct_came(struct frame_reader_state* state,
                                        struct frame_reader_connection* c,
                                        __u32 index) {
  if (c->phase == FRAME_READER_LOOK) {
    c->have = c->result;
    c->phase = FRAME_READER_LOOKED;
  } else if (c->phase == FRAME_READER_LAND) {
    frame_reader_landed(c);
  } else {
    frame_reader_direct_result(state, c, index);
  }
}

static __always_inline enum visit visit_direct(
    struct bpfgrant_loop* loop, struct frame_reader_memory* memory,
    struct frame_reader_state* state, struct frame_reader_connection* c,
    __u32 index) {
  struct frame_reader_desk* desk = &memory->desks[index];
  enum frame_reader_added added;

  if (c->phase == FRAME_READER_LANDED)
    return frame_reader_announce_lot(loop, state, c, desk) ? VISIT_READY
                                                           : VISIT_FULL;
  if (c->phase == FRAME_READER_LOOKED) {
    added = bpfgrant_part(loop, frame_reader_make_lot, memory, index);
    if (added == FRAME_READER_REFUSED) return VISIT_ENDED;
    if (added == FRAME_READER_STARVED) return VISIT_STARVED;
    c->phase = added == FRAME_READER_ADDED ? FRAME_READER_LAND
                                           : FRAME_READER_HEADER;
    c->have = 0;
  }
  if (c->phase == FRAME_READER_HEADER && c->have >= sizeof(desk->header) &&
      !frame_reader_direct_header(state, c, desk, index))
    return VISIT_ENDED;
  if (c->phase == FRAME_READER_NO_SLAB) {
    if (!frame_reader_take_slab(state, c, c->worker, c->length))
      return VISIT_STARVED;
    c->phase = FRAME_READER_BODY;
  }
  return VISIT_READY;
}

BPFGRANT_PART(frame_reader_visit_bulk, struct frame_reader_memory* memory,
              __u32 index) {
  struct frame_reader_state* state =
      bpfgrant_state(loop, struct frame_reader_state);
  struct frame_reader_connection* c;
  enum frame_reader_parsed parsed;

  if (!memory || index >= FRAME_READER_CONNECTIONS) return VISIT_READY;
  bpfgrant_checked(index);
  c = &state->connections[index];
  parsed = frame_reader_bulk_parse(memory, state, c, index);
  if (parsed == FRAME_READER_ENDED) return VISIT_ENDED;
  if (parsed == FRAME_READER_MORE) return VISIT_AGAIN;
  return frame_reader_bulk_room(memory, state, c) ? VISIT_READY
                                                  : VISIT_STARVED;
}

// Looks at what a connection's request brought.
BPFGRANT_PART(frame_reader_visit, struct frame_reader_memory* memory,
              __u32 index) {
  struct frame_reader_state* state =
      bpfgrant_state(loop, struct frame_reader_state);
  struct frame_reader_connection* c;
  int next = VISIT_ENDED;
  bool bulk = state->config.mode == FRAME_READER_BULK;

  if (!memory || index >= FRAME_READER_CONNECTIONS) return VISIT_READY;
  bpfgrant_checked(index);
  c = &state->connections[index];
  if (c->came && (c->result <= 0 || (__u32)c->result > c->asked)) {
    announce_end(state, c, index);
  } else {
    if (c->came && bulk)
      c->end += c->result;
    else if (c->came)
      direct_came(state, c, index);
    // Of a lot it is known beforehand how long it is.
    if (c->came && c->phase != FRAME_READER_LANDED)
      c->drained = (__u32)c->result < c->asked;
    c->came = 0;
    if (bulk)
      next = bpfgrant_part(loop, frame_reader_visit_bulk, memory, index);
    else
      next = visit_direct(loop, memory, state, c, index);
  }
  if (next == VISIT_ENDED)
    bpfgrant_part(loop, frame_reader_end, memory, index);
  return next;
}

// Prepares a connection's next request.
BPFGRANT_PART(frame_reader_request, struct frame_reader_memory* memory,
              struct io_uring_sqe* sqe, __u32 index) {
  struct frame_reader_state* state =
      bpfgrant_state(loop, struct frame_reader_state);
  struct frame_reader_connection* c;
  struct frame_reader_desk* desk;
  __u64 address;

  if (!memory || !sqe || index >= FRAME_READER_CONNECTIONS) return 0;
  bpfgrant_checked(index);
  c = &state->connections[index];
  desk = &memory->desks[index];
  address = frame_reader_desk_address(state, index);
  if (state->config.mode == FRAME_READER_BULK)
    frame_reader_bulk_prepare(state, c, sqe);
  else if (c->phase == FRAME_READER_LOOK)
    frame_reader_look_prepare(c, address, sqe);
  else if (c->phase == FRAME_READER_LAND)
    frame_reader_land_prepare(c, desk, address, sqe);
  else
    frame_reader_direct_prepare(state, c, desk, address, sqe);
  // A try that fails is dear.
  if (c->drained && sqe->opcode == IORING_OP_RECV)
    sqe->ioprio = IORING_RECVSEND_POLL_FIRST;
  io_uring_sqe_set_data64(sqe, index);
  if (state->config.flags & FRAME_READER_FIXED_FILES)
    io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
  c->armed = 1;
  state->in_flight++;
  return 0;
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
// now, as it seems, but something for the process to do, which ends this one: by
// then there may be, and a request that need not wait costs half.
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
    if (!FRAME_READER_IN_KERNEL && !state->config.stop_after) break;
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
