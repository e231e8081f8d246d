/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * A visit to a connection: what its last request brought, and the next one.
 */
#ifndef BPFGRANT_FRAME_READER_VISIT_H_
#define BPFGRANT_FRAME_READER_VISIT_H_

#include <linux/errno.h>

#include "frame_reader_bulk.h"
#include "frame_reader_lot.h"

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

/* Why there is no more to come, announced. */
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
  VISIT_AGAIN,   /* it has more to do */
  VISIT_FULL,    /* it waits for room in the ring buffer */
  VISIT_STARVED, /* it waits for a slab or a chunk */
  VISIT_READY,   /* its next request can be made */
  VISIT_ENDED,
};

/* What a request of mode DIRECT brought. */
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
    c->phase =
        added == FRAME_READER_ADDED ? FRAME_READER_LAND : FRAME_READER_HEADER;
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
  return frame_reader_bulk_room(memory, state, c) ? VISIT_READY : VISIT_STARVED;
}

/* Looks at what a connection's request brought. */
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
    /* Of a lot it is known beforehand how long it is. */
    if (c->came && c->phase != FRAME_READER_LANDED)
      c->drained = (__u32)c->result < c->asked;
    c->came = 0;
    if (bulk)
      next = bpfgrant_part(loop, frame_reader_visit_bulk, memory, index);
    else
      next = visit_direct(loop, memory, state, c, index);
  }
  if (next == VISIT_ENDED) bpfgrant_part(loop, frame_reader_end, memory, index);
  return next;
}

/* Prepares a connection's next request. */
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
  /* A try that fails is dear; what was peeked at is there. */
  if (c->drained && c->phase != FRAME_READER_LAND &&
      sqe->opcode == IORING_OP_RECV)
    sqe->ioprio = IORING_RECVSEND_POLL_FIRST;
  io_uring_sqe_set_data64(sqe, index);
  if (state->config.flags & FRAME_READER_FIXED_FILES)
    io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
  c->armed = 1;
  state->in_flight++;
  return 0;
}

#endif /* BPFGRANT_FRAME_READER_VISIT_H_ */
