/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Mode BULK: as many bytes at once as there are, into a chunk of the staging
 * memory that the connection holds; frames are announced where they came. Only
 * a frame that does not fit behind the others in its chunk is copied, as far as
 * it has come, to the begin of another chunk.
 */
#ifndef BPFGRANT_FRAME_READER_BULK_H_
#define BPFGRANT_FRAME_READER_BULK_H_

#include "frame_reader_state.h"

/* Where receiving into an empty chunk begins. Some processors take half as long
   again to copy from the begin of a page, where the kernel has it, to the begin
   of a page (REP MOVSB on AMD's Zen). */
#define FRAME_READER_LEAD 64U

#define FRAME_READER_PIECE 4096U
#define FRAME_READER_PIECES \
  ((int)(FRAME_READER_CHUNK_MOST / FRAME_READER_PIECE))

static __always_inline struct frame_reader_chunk* frame_reader_chunk_at(
    struct frame_reader_state* state, __u32 chunk) {
  if (chunk >= FRAME_READER_CHUNKS) return NULL;
  bpfgrant_checked(chunk);
  return &state->chunks[chunk];
}

static __always_inline void frame_reader_free_chunk(
    struct frame_reader_state* state, struct frame_reader_chunk* chunk,
    __u32 number) {
  chunk->next = state->free_chunk;
  state->free_chunk = number + 1;
  state->given = 1;
}

/* The connection receives no longer into it; it is free once its frames are. */
static __always_inline void frame_reader_drop_chunk(
    struct frame_reader_state* state, struct frame_reader_connection* c) {
  __u32 number = c->chunk - 1;
  struct frame_reader_chunk* chunk = frame_reader_chunk_at(state, number);

  if (!chunk) return;
  c->chunk = 0;
  chunk->held = 0;
  if (!chunk->out) frame_reader_free_chunk(state, chunk, number);
}

/* The process gives back `count` frames of the chunk at `place`. How many it
   had. */
static __always_inline __u32 frame_reader_put_frames(
    struct frame_reader_state* state, __u32 place, __u32 count) {
  __u32 number = place >> (state->chunk_shift & 31);
  struct frame_reader_chunk* chunk = frame_reader_chunk_at(state, number);

  if (!chunk || !chunk->out) return 0;
  if (count > chunk->out) count = chunk->out;
  chunk->out -= count;
  if (!chunk->out && !chunk->held)
    frame_reader_free_chunk(state, chunk, number);
  /* What the connection starved for may be room in its own. */
  state->given = 1;
  return count;
}

/* Moves what has come of a frame to the begin of a chunk: of its own, if nobody
   has anything of that, or of another one. False: there is none. */
static __always_inline bool frame_reader_move(
    struct frame_reader_memory* memory, struct frame_reader_state* state,
    struct frame_reader_connection* c, bool own) {
  __u32 number = (own ? c->chunk : state->free_chunk) - 1;
  struct frame_reader_chunk* chunk = frame_reader_chunk_at(state, number);
  __u32 shift = state->chunk_shift & 31;
  __u32 from = ((c->chunk - 1) << shift) + c->start;
  __u32 to = number << shift;
  __u32 left = c->end - c->start;
  int i;

  if (!chunk) return false;
  bpfgrant_for(i, 0, FRAME_READER_PIECES) {
    __u32 done = i * FRAME_READER_PIECE;
    __u32 size = left - done;

    if (done >= left) break;
    if (size > FRAME_READER_PIECE) size = FRAME_READER_PIECE;
    bpfgrant_copy(&memory->staging[(to + done) % FRAME_READER_STAGING],
                  &memory->staging[(from + done) % FRAME_READER_STAGING], size);
  }
  if (!own) {
    state->free_chunk = chunk->next;
    chunk->held = 1;
    frame_reader_drop_chunk(state, c);
    c->chunk = number + 1;
  }
  state->totals.copied += left;
  c->start = left ? 0 : FRAME_READER_LEAD;
  c->end = c->start + left;
  return true;
}

enum frame_reader_parsed {
  FRAME_READER_MORE,  /* another visit is needed */
  FRAME_READER_ALL,   /* no whole frame is left */
  FRAME_READER_ENDED, /* the connection is at its end */
};

/* A connection's frames while they are announced: what each of them needs and
   changes, read from the state once and written back once. */
struct frame_reader_run {
  __u32 chunk;            /* where it begins in `staging` */
  __u32 start, end, need; /* as of the connection */
  __u32 workers;
  __u32 most; /* bytes of a body */
  __u32 gathered;
  __u32 out;
  __u64 bytes;
  __u32 worker, length; /* of the last frame */
};

/* Announces the frame at run->start, if all of it has come and it can be. */
static __always_inline enum frame_reader_parsed frame_reader_bulk_frame(
    const struct frame_reader_memory* memory, struct frame_reader_state* state,
    struct frame_reader_run* run, __u32 index) {
  __u32 left = run->end - run->start;
  __u32 place = run->chunk + run->start;
  const __u8* header = &memory->staging[place % FRAME_READER_STAGING];
  struct frame_event* event;

  run->need = sizeof(struct frame_header);
  if (left < sizeof(struct frame_header)) return FRAME_READER_ALL;
  run->length = frame_reader_load(header);
  run->worker = frame_reader_load(header + sizeof(run->length));
  if (run->worker >= run->workers || run->length > run->most)
    return FRAME_READER_ENDED;
  run->need += run->length;
  if (left < run->need) return FRAME_READER_ALL;
  event = &state->events[run->gathered % FRAME_READER_BATCH];
  event->kind = FRAME_ARRIVED;
  event->connection = index;
  event->worker = run->worker;
  event->length = run->length;
  event->place = place + sizeof(struct frame_header);
  run->gathered++;
  run->out += run->length != 0;
  run->bytes += run->length;
  run->start += run->need;
  return FRAME_READER_MORE;
}

static __always_inline enum frame_reader_parsed frame_reader_bulk_parse(
    struct frame_reader_memory* memory, struct frame_reader_state* state,
    struct frame_reader_connection* c, __u32 index) {
  struct frame_reader_chunk* chunk = frame_reader_chunk_at(state, c->chunk - 1);
  enum frame_reader_parsed parsed = FRAME_READER_MORE;
  struct frame_reader_run run;
  int i;

  /* Most visits find nothing new. */
  if (!chunk || c->end - c->start < c->need) return FRAME_READER_ALL;
  run.chunk = (c->chunk - 1) << (state->chunk_shift & 31);
  run.start = c->start;
  run.end = c->end;
  run.need = c->need;
  run.workers = state->config.workers;
  run.most = state->config.max_length;
  run.gathered = state->gathered;
  run.out = chunk->out;
  run.bytes = state->totals.bytes;
  run.worker = run.length = 0;
  /* One place is left for its end. */
  bpfgrant_for(i, (int)run.gathered, FRAME_READER_BATCH - 1) {
    parsed = frame_reader_bulk_frame(memory, state, &run, index);
    if (parsed != FRAME_READER_MORE) break;
  }
  c->start = run.start;
  c->need =
      parsed == FRAME_READER_MORE ? sizeof(struct frame_header) : run.need;
  state->totals.frames += run.gathered - state->gathered;
  state->totals.bytes = run.bytes;
  state->with_process += run.out - chunk->out;
  state->gathered = run.gathered;
  chunk->out = run.out;
  if (parsed == FRAME_READER_ENDED)
    frame_reader_acceptable(state, index, run.worker, run.length);
  return parsed;
}

/* Sees to it that the next frame has room behind what is there. False: for lack
   of a chunk it has not. */
static __always_inline bool frame_reader_bulk_room(
    struct frame_reader_memory* memory, struct frame_reader_state* state,
    struct frame_reader_connection* c) {
  struct frame_reader_chunk* chunk = frame_reader_chunk_at(state, c->chunk - 1);
  __u32 bytes = state->config.chunk_bytes;

  if (!chunk || (c->start == c->end && !chunk->out))
    c->start = c->end = FRAME_READER_LEAD;
  if (chunk && c->start + c->need <= bytes) {
    if (c->start < c->end || c->end <= bytes - bytes / 4) return true;
    /* Another one costs nothing now, and a small request as much as a large. */
    if (!state->free_chunk) return true;
  }
  return frame_reader_move(memory, state, c, chunk && !chunk->out && c->start);
}

static __always_inline void frame_reader_bulk_prepare(
    struct frame_reader_state* state, struct frame_reader_connection* c,
    struct io_uring_sqe* sqe) {
  __u64 at = ((__u64)(c->chunk - 1) << (state->chunk_shift & 31)) + c->end;

  c->asked = state->config.chunk_bytes - c->end;
  io_uring_prep_recv(
      sqe, c->fd,
      (void*)(state->config.memory +
              offsetof(struct frame_reader_memory, staging) + at),
      c->asked, 0);
}

#endif /* BPFGRANT_FRAME_READER_BULK_H_ */
