/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the process asked for: the config, once, and its commands.
 */
#ifndef BPFGRANT_FRAME_READER_SETUP_H_
#define BPFGRANT_FRAME_READER_SETUP_H_

#include <linux/errno.h>

#include "frame_reader_bulk.h"
#include "frame_reader_lot.h"

static __always_inline void frame_reader_add_slab(
    struct frame_reader_state* state, __u32 at) {
  __u32 slab = state->slabs;

  if (at >= FRAME_READER_POOLS || slab >= FRAME_READER_SLABS) return;
  bpfgrant_checked(at);
  bpfgrant_checked(slab);
  /* The first one stays the head: neighbours are used one after the other. */
  state->slab_pool[slab] = at;
  state->slab_next[slab] = state->pools[at].free;
  state->pools[at].free = slab + 1;
  state->slabs = slab + 1;
}

/* The slabs of one worker and class. `address` is where they begin. */
static __always_inline bool frame_reader_add_pool(
    struct frame_reader_state* state, __u32 worker, __u32 class,
    __u64 address) {
  __u32 at = worker * FRAME_READER_CLASSES + class;
  struct frame_reader_pool* pool;
  __u32 count;
  int n;

  if (class >= FRAME_READER_CLASSES || at >= FRAME_READER_POOLS) return false;
  bpfgrant_checked(class);
  bpfgrant_checked(at);
  count = state->config.class_slabs[class];
  if (count == 0 || count > FRAME_READER_SLABS - state->slabs) return false;
  pool = &state->pools[at];
  pool->address = address;
  pool->bytes = state->config.class_bytes[class];
  pool->first = state->slabs;
  bpfgrant_for(n, 0, FRAME_READER_SLABS) {
    if ((__u32)n >= count) break;
    frame_reader_add_slab(state, at);
  }
  return true;
}

static __always_inline bool frame_reader_set_up_direct(
    struct frame_reader_state* state) {
  struct frame_reader_config* config = &state->config;
  int n;

  if (config->classes == 0 || config->classes > FRAME_READER_CLASSES ||
      config->class_bytes[0] <= sizeof(struct frame_header))
    return false;
  state->next_slab = config->slabs;
  bpfgrant_for(n, 0, FRAME_READER_POOLS) {
    __u32 worker = (__u32)n / FRAME_READER_CLASSES;
    __u32 class = (__u32)n % FRAME_READER_CLASSES;

    if (worker >= config->workers) break;
    if (class >= config->classes) {
      config->class_bytes[class] = ~0U;
      continue;
    }
    if (class && config->class_bytes[class] <= config->class_bytes[class - 1])
      return false;
    if (!frame_reader_add_pool(state, worker, class, state->next_slab))
      return false;
    state->next_slab +=
        (__u64)config->class_bytes[class] * config->class_slabs[class];
    state->longest = config->class_bytes[class] - sizeof(struct frame_header);
  }
  return true;
}

static __always_inline bool frame_reader_set_up_bulk(
    struct frame_reader_state* state) {
  __u32 bytes = state->config.chunk_bytes;
  __u32 count;
  int n;

  if (bytes < FRAME_READER_CHUNK_LEAST || bytes > FRAME_READER_CHUNK_MOST ||
      (bytes & (bytes - 1)))
    return false;
  state->chunk_shift = 0;
  bpfgrant_for(n, 14, 21) {
    if (bytes >> n & 1) state->chunk_shift = n;
  }
  count = FRAME_READER_STAGING / bytes;
  bpfgrant_for(n, 0, FRAME_READER_CHUNKS) {
    if ((__u32)n >= count) break;
    state->chunks[n % FRAME_READER_CHUNKS].next = state->free_chunk;
    state->free_chunk = n + 1;
  }
  state->longest = bytes - sizeof(struct frame_header);
  return true;
}

/* Reads the config, once. False: it cannot be. */
BPFGRANT_PART(frame_reader_set_up, struct frame_reader_memory* memory) {
  struct frame_reader_state* state =
      bpfgrant_state(loop, struct frame_reader_state);
  struct frame_reader_config* config = &state->config;
  bool fine = false;

  if (!memory) return false;
  bpfgrant_copy(config, &memory->config, sizeof(*config));
  if (config->workers == 0 || config->workers > FRAME_READER_WORKERS)
    return false;
  if (config->mode == FRAME_READER_DIRECT)
    fine = frame_reader_set_up_direct(state);
  else if (config->mode == FRAME_READER_BULK)
    fine = frame_reader_set_up_bulk(state);
  if (!fine) return false;
  if (config->max_length == 0 || config->max_length > state->longest)
    config->max_length = state->longest;
  state->ready = 1;
  return true;
}

static __always_inline void frame_reader_open(struct frame_reader_state* state,
                                              __u32 index, __s32 fd) {
  struct frame_reader_connection* c;

  if (index >= FRAME_READER_CONNECTIONS) return;
  bpfgrant_checked(index);
  c = &state->connections[index];
  if (c->open || c->armed || c->queued) return;
  c->open = 1;
  c->fd = fd;
  c->result = 0;
  c->phase = FRAME_READER_LOOK;
  c->lot = 0;
  c->have = 0;
  c->came = 0;
  c->drained = 0;
  c->need = sizeof(struct frame_header);
  c->queued = 1;
  state->totals.open++;
  frame_reader_put(&state->work, index);
}

/* Something is given back; what of it was never taken is not counted. */
static __always_inline void frame_reader_give(struct frame_reader_state* state,
                                              __u32 place, __u32 count) {
  __u32 taken;

  if (state->config.mode == FRAME_READER_BULK)
    taken = frame_reader_put_frames(state, place, count);
  else
    taken = frame_reader_put_slab(state, place);
  state->with_process -=
      taken < state->with_process ? taken : state->with_process;
}

/* Takes what the process has told. What it may have told wrong is checked where
   it is used. */
BPFGRANT_PART(frame_reader_take_commands, struct frame_reader_memory* memory) {
  struct frame_reader_state* state =
      bpfgrant_state(loop, struct frame_reader_state);
  __u32 tail;
  int n;

  if (!memory) return 0;
  tail = bpfgrant_load_acquire(&memory->command_tail);
  bpfgrant_for(n, 0, FRAME_READER_COMMANDS) {
    __u32 at = state->command_head % FRAME_READER_COMMANDS;
    __u32 what = bpfgrant_read_once(memory->commands[at].what);
    __u32 value = bpfgrant_read_once(memory->commands[at].value);
    __u32 detail = what & 0xffffff;

    if (state->command_head == tail) break;
    state->command_head++;
    if (what >> 24 == FRAME_READER_OPEN)
      frame_reader_open(state, detail, value);
    else if (what >> 24 == FRAME_READER_GIVE)
      frame_reader_give(state, value, detail);
  }
  bpfgrant_store_release(&memory->command_head, state->command_head);
  return 0;
}

#endif /* BPFGRANT_FRAME_READER_SETUP_H_ */
