/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Mode DIRECT: bodies straight into slabs of their size classes and workers.
 * This file is about long frames: a header, then its body, which asks for the
 * next header as well where that saves a request. frame_reader_lot.h has the
 * short ones.
 */
#ifndef BPFGRANT_FRAME_READER_DIRECT_H_
#define BPFGRANT_FRAME_READER_DIRECT_H_

#include "frame_reader_state.h"

/* Bodies up to here go in lots. */
#define FRAME_READER_SHORT 4088
/* Longer bodies get a request of their own: what the second one costs is less
   than what two buffers cost. */
#define FRAME_READER_LONG 16384

/* The first class whose slabs are long enough. Without a branch, each of which
   the verifier would follow for each class. */
static __always_inline __u32
frame_reader_class(const struct frame_reader_state* state, __u64 bytes) {
  const __u32* class_bytes = state->config.class_bytes;
  __u32 class = 0;
  __u32 i;

  for (i = 0; i < FRAME_READER_CLASSES; i++)
    class += (class_bytes[i] - bytes) >> 63;
  return class;
}

/* Takes a slab for a body: c->slab, whose body is at c->address. False: there
 * is none. */
static __always_inline bool frame_reader_take_slab(
    struct frame_reader_state* state, struct frame_reader_connection* c,
    __u32 worker, __u32 length) {
  __u32 class =
      frame_reader_class(state, sizeof(struct frame_header) + (__u64)length);
  __u32 at = worker * FRAME_READER_CLASSES + class;
  struct frame_reader_pool* pool;
  __u32 slab;

  if (at >= FRAME_READER_POOLS) return false;
  bpfgrant_checked(at);
  pool = &state->pools[at];
  slab = pool->free - 1;
  if (slab >= FRAME_READER_SLABS) return false;
  bpfgrant_checked(slab);
  pool->free = state->slab_next[slab];
  state->slab_next[slab] = FRAME_READER_OUT;
  c->slab = slab;
  c->address = pool->address + (__u64)(slab - pool->first) * pool->bytes +
               sizeof(struct frame_header);
  return true;
}

/* 1 if it was out, and is not any more; 0 if it was given back before. */
static __always_inline __u32
frame_reader_put_slab(struct frame_reader_state* state, __u32 slab) {
  __u32 at;

  if (slab >= FRAME_READER_SLABS) return 0;
  bpfgrant_checked(slab);
  if (slab >= state->slabs || state->slab_next[slab] != FRAME_READER_OUT)
    return 0;
  at = state->slab_pool[slab];
  if (at >= FRAME_READER_POOLS) return 0;
  bpfgrant_checked(at);
  state->slab_next[slab] = state->pools[at].free;
  state->pools[at].free = slab + 1;
  state->given = 1;
  return 1;
}

/* What arrived: the rest of the body, then bytes of the next header. */
static __always_inline void frame_reader_direct_result(
    struct frame_reader_state* state, struct frame_reader_connection* c,
    __u32 index) {
  __u32 came = c->result;
  __u32 rest = c->length - c->have;

  if (c->phase == FRAME_READER_BODY) {
    if (came < rest) {
      c->have += came;
      return;
    }
    frame_reader_announce(state, FRAME_ARRIVED, index, c->worker, c->length,
                          c->slab);
    came -= rest;
    c->have = 0;
    /* Short ones may follow; unless the next header came along. */
    c->phase = FRAME_READER_HEADER;
    if (!came && c->length <= FRAME_READER_SHORT) c->phase = FRAME_READER_LOOK;
  }
  c->have += came;
}

/* Looks at a whole header. False: the connection is at its end. */
static __always_inline bool frame_reader_direct_header(
    struct frame_reader_state* state, struct frame_reader_connection* c,
    const struct frame_reader_desk* desk, __u32 index) {
  __u32 length = bpfgrant_read_once(desk->header.length);
  __u32 worker = bpfgrant_read_once(desk->header.worker);

  if (!frame_reader_acceptable(state, index, worker, length)) return false;
  c->have = 0;
  c->length = length;
  c->worker = worker;
  if (length) {
    c->phase = FRAME_READER_NO_SLAB;
    return true;
  }
  c->phase = FRAME_READER_LOOK;
  frame_reader_announce(state, FRAME_ARRIVED, index, worker, 0, 0);
  return true;
}

static __always_inline void frame_reader_direct_prepare(
    struct frame_reader_state* state, struct frame_reader_connection* c,
    struct frame_reader_desk* desk, __u64 address, struct io_uring_sqe* sqe) {
  __u32 rest = c->length - c->have;
  void* to = (void*)(c->address + c->have);

  if (c->phase == FRAME_READER_HEADER) {
    c->asked = sizeof(desk->header) - c->have;
    io_uring_prep_recv(sqe, c->fd, (void*)(address + c->have), c->asked, 0);
  } else if (c->length > FRAME_READER_SHORT && rest <= FRAME_READER_LONG) {
    c->asked = rest + sizeof(desk->header);
    desk->vectors[0].base = c->address + c->have;
    desk->vectors[0].length = rest;
    desk->vectors[1].base = address;
    desk->vectors[1].length = sizeof(desk->header);
    frame_reader_prep_vectors(sqe, c->fd, desk, address, 0, 2);
  } else {
    c->asked = rest;
    if (state->config.flags & FRAME_READER_FIXED_SLABS)
      io_uring_prep_read_fixed(sqe, c->fd, to, rest, 0, 0);
    else
      io_uring_prep_recv(sqe, c->fd, to, rest, MSG_WAITALL);
  }
}

#endif /* BPFGRANT_FRAME_READER_DIRECT_H_ */
