/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Mode DIRECT, short frames: the loop peeks at what has come, chooses a slab
 * for each frame that is there, and has one request put a whole lot of them
 * into their slabs. So many frames cost two requests, and still no copy is made
 * in the process.
 */
#ifndef BPFGRANT_FRAME_READER_LOT_H_
#define BPFGRANT_FRAME_READER_LOT_H_

#include "frame_reader_direct.h"

#define FRAME_READER_FIRST_LOOK 2048U

enum frame_reader_added {
  FRAME_READER_ADDED,
  FRAME_READER_NO_MORE, /* not all of the next one is there, or it is long */
  FRAME_READER_STARVED, /* there is no slab for it */
  FRAME_READER_REFUSED, /* it cannot be; announced if it is the first */
};

/* Adds the frame at `at` of what was peeked. */
static __always_inline enum frame_reader_added frame_reader_add_frame(
    struct frame_reader_state* state, struct frame_reader_connection* c,
    struct frame_reader_desk* desk, __u64 address, __u32 index) {
  __u32 header = sizeof(struct frame_header);
  __u32 left = c->have - c->asked;
  __u32 at = c->asked;
  __u32 n = c->lot;
  __u32 length, worker;

  if (c->asked > c->have || left < header || n >= FRAME_READER_LOT ||
      at > FRAME_READER_PEEK - header)
    return FRAME_READER_NO_MORE;
  bpfgrant_checked(at);
  length = frame_reader_load(&desk->peeked[at]);
  worker = frame_reader_load(&desk->peeked[at + sizeof(length)]);
  if (worker >= state->config.workers || length > state->config.max_length) {
    if (!n) frame_reader_acceptable(state, index, worker, length);
    return FRAME_READER_REFUSED;
  }
  /* Part of a frame is not waited for while whole ones are there. */
  if (length > FRAME_READER_SHORT || (n && left - header < length))
    return FRAME_READER_NO_MORE;
  c->slab = 0;
  if (length && !frame_reader_take_slab(state, c, worker, length))
    return FRAME_READER_STARVED;
  bpfgrant_checked(n);
  desk->vectors[n].base = length ? c->address - header : address;
  desk->vectors[n].length = header + length;
  desk->lot[n].kind = FRAME_ARRIVED;
  desk->lot[n].connection = index;
  desk->lot[n].worker = worker;
  desk->lot[n].length = length;
  desk->lot[n].place = c->slab;
  c->lot = n + 1;
  c->asked += header + length;
  c->bytes += length;
  c->places += length != 0;
  return FRAME_READER_ADDED;
}

/* Makes a lot of what was peeked: c->lot frames, c->asked bytes. Returns
   enum frame_reader_added. */
BPFGRANT_PART(frame_reader_make_lot, struct frame_reader_memory* memory,
              __u32 index) {
  struct frame_reader_state* state =
      bpfgrant_state(loop, struct frame_reader_state);
  enum frame_reader_added added = FRAME_READER_NO_MORE;
  struct frame_reader_connection* c;
  struct frame_reader_desk* desk;
  __u64 address;
  int i;

  if (!memory || index >= FRAME_READER_CONNECTIONS) return added;
  bpfgrant_checked(index);
  c = &state->connections[index];
  desk = &memory->desks[index];
  address = frame_reader_desk_address(state, index);
  c->lot = 0;
  c->asked = 0;
  c->bytes = 0;
  c->places = 0;
  c->vector = 0;
  c->skip = 0;
  bpfgrant_for(i, 0, FRAME_READER_LOT + 1) {
    added = frame_reader_add_frame(state, c, desk, address, index);
    if (added != FRAME_READER_ADDED) break;
  }
  if (!c->lot) return added;
  /* As much as it took this time; twice that, if it took all there was. */
  c->look =
      c->have - c->asked < FRAME_READER_SHORT / 4 && c->lot < FRAME_READER_LOT
          ? 2 * c->look
          : c->asked + 64;
  return FRAME_READER_ADDED;
}

/* Asks for a look at what comes. */
static __always_inline void frame_reader_look_prepare(
    struct frame_reader_connection* c, __u64 address,
    struct io_uring_sqe* sqe) {
  if (c->look < FRAME_READER_FIRST_LOOK) c->look = FRAME_READER_FIRST_LOOK;
  if (c->look > FRAME_READER_PEEK) c->look = FRAME_READER_PEEK;
  c->asked = c->look;
  io_uring_prep_recv(
      sqe, c->fd, (void*)(address + offsetof(struct frame_reader_desk, peeked)),
      c->asked, MSG_PEEK);
}

/* The whole lot, or what is left of it after a short read. */
static __always_inline void frame_reader_land_prepare(
    struct frame_reader_connection* c, struct frame_reader_desk* desk,
    __u64 address, struct io_uring_sqe* sqe) {
  int i;

  bpfgrant_for(i, 0, FRAME_READER_LOT) {
    __u32 at = c->vector;
    __u64 length;

    if (at >= FRAME_READER_LOT) break;
    bpfgrant_checked(at);
    length = bpfgrant_read_once(desk->vectors[at].length);
    if (c->skip < length) {
      desk->vectors[at].base += c->skip;
      desk->vectors[at].length = length - c->skip;
      c->skip = 0;
      break;
    }
    c->skip -= length;
    c->vector = at + 1;
  }
  if (c->lot - c->vector == 1 && c->vector < FRAME_READER_LOT) {
    /* A message would have to be looked at first. */
    frame_reader_prep_vector(sqe, c->fd, desk, c->vector);
    return;
  }
  frame_reader_prep_vectors(sqe, c->fd, desk, address, c->vector,
                            c->lot - c->vector);
}

static __always_inline void frame_reader_landed(
    struct frame_reader_connection* c) {
  __u32 came = c->result;

  c->have += came;
  c->skip = came;
  c->asked -= came;
  if (!c->asked) c->phase = FRAME_READER_LANDED;
}

/* One record for the lot. False: the ring buffer is full. */
static __always_inline bool frame_reader_announce_lot(
    struct bpfgrant_loop* loop, struct frame_reader_state* state,
    struct frame_reader_connection* c, const struct frame_reader_desk* desk) {
  __u32 lot = bpfgrant_read_once(c->lot);

  if (lot > FRAME_READER_LOT || !frame_reader_flush(loop, state)) return false;
  if (!bpfgrant_emit(loop, desk->lot, lot * sizeof(desk->lot[0]),
                     frame_reader_waking(state)))
    return false;
  state->announced += lot;
  state->totals.frames += lot;
  state->totals.bytes += c->bytes;
  state->with_process += c->places;
  c->lot = 0;
  c->phase = FRAME_READER_LOOK;
  return true;
}

/* The slabs of a lot that will not be announced. */
static __always_inline void frame_reader_drop_lot(
    struct frame_reader_state* state, struct frame_reader_connection* c,
    const struct frame_reader_desk* desk) {
  int i;

  bpfgrant_for(i, 0, FRAME_READER_LOT) {
    __u32 at = i;

    if (at >= c->lot || at >= FRAME_READER_LOT) break;
    bpfgrant_checked(at);
    if (bpfgrant_read_once(desk->lot[at].length))
      frame_reader_put_slab(state, bpfgrant_read_once(desk->lot[at].place));
  }
  c->lot = 0;
}

#endif /* BPFGRANT_FRAME_READER_LOT_H_ */
