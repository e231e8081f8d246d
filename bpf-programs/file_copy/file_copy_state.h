/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the loop `file_copy` keeps where the process cannot reach it, and how
 * its lanes find their next block.
 */
#ifndef BPFGRANT_FILE_COPY_STATE_H_
#define BPFGRANT_FILE_COPY_STATE_H_

#include <bpfgrant/loop.h>
#include <linux/errno.h>

#include "file_copy.h"

/* Results that say "again", of one request after the other. */
#define FILE_COPY_PATIENCE 64

/* Of no request: of one that only wakes the loop. */
#define FILE_COPY_IDLE BPFGRANT_WAKE

/* One block at a time: read, all of it, and then written. */
struct file_copy_lane {
  __u64 expects; /* user_data of the request under way, or FILE_COPY_IDLE */
  __u32 ticket;  /* of its last request, ever */
  __u32 extent;
  __u64 skip; /* of the block, in the extent */
  __u64 from;
  __u64 to;
  __u32 length;
  __u32 got; /* of these, read */
  __u32 put; /* of these, written */
  __u32 writing;
  __u32 failed;
  __u32 patience;
};

struct file_copy_state {
  __u32 running;
  __u32 begun; /* lanes that have had a block */
  __u32 busy;  /* lanes */
  __u32 last;  /* no further block */
  __u32 strangers;
  /* The next block. */
  __u32 extent;
  __u32 fetched; /* the three below are this extent's */
  __u64 skip;
  __u64 from;
  __u64 to;
  __u64 length;
  __u64 limit;      /* bytes that may still be begun */
  __u64 error_skip; /* in outcome.in_extent: where the error was */
  struct file_copy_job job;
  struct file_copy_outcome outcome;
  struct file_copy_lane lanes[FILE_COPY_LANES];
};

static __always_inline struct file_copy_lane* file_copy_lane_at(
    struct file_copy_state* state, __u32 number) {
  return &state->lanes[number % FILE_COPY_LANES];
}

/* Nothing more is begun. */
static __always_inline void file_copy_refuse(struct file_copy_state* state,
                                             __u32 reason, __s32 error,
                                             __u32 in_extent) {
  state->last = 1;
  if (state->outcome.reason) return;
  state->error_skip = ~0ULL;
  state->outcome.reason = reason;
  state->outcome.error = error;
  state->outcome.in_extent = in_extent;
}

/* The extent whose turn it is, out of the memory. */
static __always_inline bool file_copy_fetch(
    struct file_copy_state* state, const struct file_copy_memory* memory) {
  const struct file_copy_extent* extent =
      &memory->extents[state->extent % FILE_COPY_EXTENTS];
  __u64 most = ~0ULL >> 1;
  __u32 reason = FILE_COPY_FINE;

  state->from = bpfgrant_read_once(extent->from);
  state->to = bpfgrant_read_once(extent->to);
  state->length = bpfgrant_read_once(extent->length);
  if (state->from > most || state->to > most) {
    reason = FILE_COPY_BAD_EXTENT;
  } else {
    most -= state->from > state->to ? state->from : state->to;
    if (state->length == FILE_COPY_TO_END) state->length = most;
    if (state->length > most) reason = FILE_COPY_BAD_EXTENT;
    if (state->skip > state->length) reason = FILE_COPY_BAD_SKIP;
  }
  state->fetched = reason == FILE_COPY_FINE;
  if (reason) file_copy_refuse(state, reason, -EINVAL, state->extent);
  return state->fetched;
}

static __always_inline void file_copy_next_extent(
    struct file_copy_state* state) {
  state->extent += 1;
  state->skip = 0;
  state->fetched = 0;
}

/* Whether the lane has a next block. One at most of each call is an extent's
   last, and empty: the caller asks again. */
static __always_inline bool file_copy_next_block(
    struct file_copy_state* state, const struct file_copy_memory* memory,
    struct file_copy_lane* lane) {
  __u64 left;
  __u32 block = state->job.block;

  if (!state->fetched && !file_copy_fetch(state, memory)) return false;
  left = state->length - state->skip;
  if (left > state->limit) left = state->limit;
  lane->length = left < block ? left : block;
  lane->extent = state->extent;
  lane->skip = state->skip;
  lane->from = state->from + state->skip;
  lane->to = state->to + state->skip;
  lane->got = lane->put = 0;
  lane->writing = 0;
  lane->patience = FILE_COPY_PATIENCE;
  state->skip += lane->length;
  state->limit -= lane->length;
  if (state->skip >= state->length) file_copy_next_extent(state);
  return lane->length > 0;
}

#endif /* BPFGRANT_FILE_COPY_STATE_H_ */
