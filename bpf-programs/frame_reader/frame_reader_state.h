/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the loop keeps to itself, and what all its parts do with it: queues of
 * connections and announcements. Nothing here is read from memory that the
 * process can change.
 */
#ifndef BPFGRANT_FRAME_READER_STATE_H_
#define BPFGRANT_FRAME_READER_STATE_H_

#include <bpfgrant/loop.h>

#include "frame_reader.h"

enum {
  /* Events gathered into one record of the ring buffer. */
  FRAME_READER_BATCH = 256,
  FRAME_READER_CHUNKS = FRAME_READER_STAGING / FRAME_READER_CHUNK_LEAST,
  FRAME_READER_POOLS = FRAME_READER_WORKERS * FRAME_READER_CLASSES,
  /* slab_next: the slab is not in the pool. */
  FRAME_READER_OUT = 0xffff,
};

/* Of a connection in mode DIRECT; frame_reader_direct.h. */
enum frame_reader_phase {
  FRAME_READER_LOOK,    /* short frames: peeking */
  FRAME_READER_LOOKED,  /* there is something to make a lot of */
  FRAME_READER_LAND,    /* a lot is under way to its slabs */
  FRAME_READER_LANDED,  /* it is there, to be announced */
  FRAME_READER_HEADER,  /* long ones: a header is under way */
  FRAME_READER_NO_SLAB, /* it is there; a slab for it is not */
  FRAME_READER_BODY,
};

struct frame_reader_connection {
  __s32 fd;
  __s32 result; /* of the last request */
  __u8 open;
  __u8 armed;   /* a request is under way */
  __u8 came;    /* `result` was not yet looked at */
  __u8 queued;  /* it stands in one of the queues */
  __u8 drained; /* the last request got less than it asked for */
  __u32 phase;  /* DIRECT: enum frame_reader_phase */
  __u32 asked;  /* bytes that the request is for */
  /* DIRECT */
  __u32 have;   /* bytes of the header, the body, what was peeked, or the lot */
  __u32 lot;    /* frames of it */
  __u32 bytes;  /* of their bodies */
  __u32 places; /* that they take */
  __u32 vector; /* the first that is not yet full */
  __u32 skip;   /* bytes of it that are there */
  __u32 look;   /* bytes to peek at */
  __u32 length;
  __u32 worker;
  __u32 slab;
  __u64 address; /* of the slab */
  /* BULK */
  __u32 chunk; /* 1 + its number; 0: none */
  __u32 start; /* of what is not yet announced, within the chunk */
  __u32 end;   /* of what has arrived */
  __u32 need;  /* bytes from `start` on that the next frame takes */
};

struct frame_reader_chunk {
  __u32 out;  /* frames that were announced and not given back */
  __u16 next; /* 1 + the next free one */
  __u16 held; /* a connection receives into it */
};

struct frame_reader_pool {
  __u64 address;
  __u32 bytes; /* of a slab */
  __u32 first; /* slab */
  __u32 free;  /* 1 + the first free slab */
  __u32 reserved;
};

/* A connection stands in one of the queues at most, so none overflows. */
struct frame_reader_queue {
  __u32 head, tail;
  __u16 items[FRAME_READER_CONNECTIONS];
};

struct frame_reader_state {
  struct frame_reader_config config;
  __u32 ready; /* the config was read */
  __u32 chunk_shift;
  __u32 free_chunk; /* 1 + the first */
  __u32 slabs;
  __u32 command_head;
  __u32 in_flight;    /* requests */
  __u32 announced;    /* events since the last stop */
  __u32 given;        /* something was given back in this step */
  __u32 with_process; /* places announced and not given back */
  __u32 looked;       /* nothing came of a look at what completed meanwhile */
  __u32 gathered;     /* of `events` */
  __u32 longest;      /* body there can be room for */
  __u64 next_slab;    /* while it is set up: where the next pool begins */
  struct frame_reader_totals totals;
  struct frame_reader_queue work;
  struct frame_reader_queue starved;
  struct frame_reader_queue resting; /* until the next run */
  struct frame_event events[FRAME_READER_BATCH];
  struct frame_reader_chunk chunks[FRAME_READER_CHUNKS];
  struct frame_reader_pool pools[FRAME_READER_POOLS];
  struct frame_reader_connection connections[FRAME_READER_CONNECTIONS];
  __u16 slab_next[FRAME_READER_SLABS]; /* 1 + the next free one */
  __u8 slab_pool[FRAME_READER_SLABS];
};

BPFGRANT_STATE(struct frame_reader_state);
BPFGRANT_EVENTS(FRAME_READER_EVENT_BYTES);

static __always_inline void frame_reader_put(struct frame_reader_queue* queue,
                                             __u32 connection) {
  queue->items[queue->tail++ % FRAME_READER_CONNECTIONS] = connection;
}

static __always_inline __u32
frame_reader_take(struct frame_reader_queue* queue) {
  return queue->items[queue->head++ % FRAME_READER_CONNECTIONS] %
         FRAME_READER_CONNECTIONS;
}

static __always_inline bool frame_reader_empty(
    const struct frame_reader_queue* queue) {
  return queue->head == queue->tail;
}

/* Appends all of one queue to another. */
static __always_inline void frame_reader_pour(struct frame_reader_queue* from,
                                              struct frame_reader_queue* to) {
  int n;

  bpfgrant_for(n, 0, FRAME_READER_CONNECTIONS) {
    if (frame_reader_empty(from)) break;
    frame_reader_put(to, frame_reader_take(from));
  }
}

/* Without a reader that waits for them, nobody is to be woken. */
static __always_inline __u32
frame_reader_waking(const struct frame_reader_state* state) {
  return state->config.stop_after ? BPFGRANT_EMIT_QUIET : BPFGRANT_EMIT;
}

/* Hands what was gathered to the reader. False if the ring buffer is full. */
static __always_inline bool frame_reader_flush(
    struct bpfgrant_loop* loop, struct frame_reader_state* state) {
  __u32 gathered = bpfgrant_read_once(state->gathered);

  if (gathered == 0 || gathered > FRAME_READER_BATCH) return true;
  if (!bpfgrant_emit(loop, state->events, gathered * sizeof(state->events[0]),
                     frame_reader_waking(state)))
    return false;
  state->announced += gathered;
  state->gathered = 0;
  return true;
}

/* That there is room for two events more, the most that one completion brings
   by itself. */
static __always_inline bool frame_reader_has_room(
    const struct frame_reader_state* state) {
  return state->gathered + 2 <= FRAME_READER_BATCH;
}

static __always_inline void frame_reader_announce(
    struct frame_reader_state* state, __u32 kind, __u32 connection,
    __u32 worker, __u32 length, __u32 place) {
  struct frame_event* event =
      &state->events[state->gathered % FRAME_READER_BATCH];

  event->kind = kind;
  event->connection = connection;
  event->worker = worker;
  event->length = length;
  event->place = place;
  state->gathered++;
  if (kind == FRAME_ARRIVED) {
    state->totals.frames++;
    state->totals.bytes += length;
    state->with_process += length != 0;
  }
}

/* What the requests of a connection point to, as an address in the process. */
static __always_inline __u64
frame_reader_desk_address(const struct frame_reader_state* state, __u32 index) {
  return state->config.memory + offsetof(struct frame_reader_memory, desks) +
         index * sizeof(struct frame_reader_desk);
}

/* Asks for bytes into the vectors from `first` on. By RECVMSG and not READV,
   which does not wait where the socket is non-blocking. */
static __always_inline void frame_reader_prep_vectors(
    struct io_uring_sqe* sqe, __s32 fd, struct frame_reader_desk* desk,
    __u64 address, __u32 first, __u32 count) {
  desk->message[0] = 0;
  desk->message[1] = 0;
  desk->message[2] = address + offsetof(struct frame_reader_desk, vectors) +
                     first * sizeof(desk->vectors[0]);
  desk->message[3] = count;
  desk->message[4] = 0;
  desk->message[5] = 0;
  io_uring_prep_recvmsg(
      sqe, fd, (void*)(address + offsetof(struct frame_reader_desk, message)),
      0);
}

/* The same for one vector. */
static __always_inline void frame_reader_prep_vector(
    struct io_uring_sqe* sqe, __s32 fd, const struct frame_reader_desk* desk,
    __u32 at) {
  if (at >= FRAME_READER_LOT) return;
  bpfgrant_checked(at);
  io_uring_prep_recv(sqe, fd, (void*)bpfgrant_read_once(desk->vectors[at].base),
                     bpfgrant_read_once(desk->vectors[at].length), 0);
}

/* A number of a frame's header, wherever that begins. */
static __always_inline __u32 frame_reader_load(const __u8* from) {
#ifdef __bpf__
  return *(const volatile __u32*)from;
#else
  __u32 value;

  memcpy(&value, from, sizeof(value));
  return value;
#endif
}

/* Whether a frame can be. If not, that is announced. */
static __always_inline bool frame_reader_acceptable(
    struct frame_reader_state* state, __u32 index, __u32 worker, __u32 length) {
  if (worker >= state->config.workers) {
    frame_reader_announce(state, FRAME_BAD_WORKER, index, worker, length, 0);
    return false;
  }
  if (length > state->config.max_length) {
    frame_reader_announce(state, FRAME_TOO_LONG, index, worker, length, 0);
    return false;
  }
  return true;
}

#endif /* BPFGRANT_FRAME_READER_STATE_H_ */
