// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// Copies a file's extents into another file, several blocks at once. README.md
// says how it is told what, and what it tells.
//
// A lane has a block: it reads all of it, or as much as there is, then writes
// that, and takes the next block. Where it reads and writes depends on nothing
// in the shared memory but an extent, once, when that is begun.

#include "file_copy.h"

#include "file_copy_state.h"

BPFGRANT_STATE(struct file_copy_state);

// A request's user_data: its lane, and above it a number that no other request
// of the lane has, since completions can be forged and old ones can come late.
#define FILE_COPY_LANE_BITS 8

// Completions after which a step returns, so that the entry can look whether it
// is still wanted, and the kernel after signals.
#define FILE_COPY_AT_ONCE 128

static __always_inline void file_copy_begin(
    struct file_copy_state* state, const struct file_copy_memory* memory) {
  const struct file_copy_job* from = &memory->job;
  struct file_copy_job* job = &state->job;
  __u32 known = FILE_COPY_FROM_SLOT | FILE_COPY_TO_SLOT | FILE_COPY_BUFFER;
  __u32 reason = FILE_COPY_FINE;
  int i;

  job->from_fd = bpfgrant_read_once(from->from_fd);
  job->to_fd = bpfgrant_read_once(from->to_fd);
  job->flags = bpfgrant_read_once(from->flags);
  job->block = bpfgrant_read_once(from->block);
  job->lanes = bpfgrant_read_once(from->lanes);
  job->buffer = bpfgrant_read_once(from->buffer);
  job->buffers = bpfgrant_read_once(from->buffers);
  job->extents = bpfgrant_read_once(from->extents);
  state->limit = bpfgrant_read_once(from->limit);
  state->extent = bpfgrant_read_once(from->extent);
  state->skip = bpfgrant_read_once(from->skip);
  if (!state->limit) state->limit = ~0ULL;
  state->fetched = state->begun = state->busy = state->last = 0;
  state->strangers = 0;
  __builtin_memset(&state->outcome, 0, sizeof(state->outcome));
  state->outcome.end = ~0ULL;
  bpfgrant_for(i, 0, FILE_COPY_LANES) {
    file_copy_lane_at(state, i)->expects = FILE_COPY_IDLE;
    file_copy_lane_at(state, i)->failed = 0;
  }
  state->running = 1;
  if (job->flags & ~known)
    reason = FILE_COPY_BAD_FLAGS;
  else if (job->block == 0 || job->block > FILE_COPY_MAX_BLOCK)
    reason = FILE_COPY_BAD_BLOCK;
  else if (job->lanes == 0 || job->lanes > FILE_COPY_LANES)
    reason = FILE_COPY_BAD_LANES;
  else if (job->buffer > (job->flags & FILE_COPY_BUFFER ? 0xffff : 0))
    reason = FILE_COPY_BAD_BUFFER;
  else if (job->extents > FILE_COPY_EXTENTS || state->extent > job->extents)
    reason = FILE_COPY_BAD_EXTENTS;
  else if (state->extent == job->extents && state->skip)
    reason = FILE_COPY_BAD_SKIP;
  if (reason) file_copy_refuse(state, reason, -EINVAL, 0);
}

// Prepares the lane's request: for what its block still lacks.
static __noinline bool file_copy_issue(struct io_uring* ring,
                                       struct file_copy_state* state,
                                       __u32 number) {
  struct file_copy_lane* lane = file_copy_lane_at(state, number);
  const struct file_copy_job* job = &state->job;
  struct io_uring_sqe* sqe = io_uring_get_sqe(ring);
  bool fixed = job->flags & FILE_COPY_BUFFER;
  bool writing = lane->writing;
  __u32 at = writing ? lane->put : lane->got;
  __u64 address =
      job->buffers + (__u64)(number % FILE_COPY_LANES) * job->block + at;
  __u64 user_data;

  if (!sqe) return false;
  if (writing) {
    io_uring_prep_rw(fixed ? IORING_OP_WRITE_FIXED : IORING_OP_WRITE, sqe,
                     job->to_fd, (const void*)(unsigned long)address,
                     lane->got - at, lane->to + at);
    if (job->flags & FILE_COPY_TO_SLOT) sqe->flags = IOSQE_FIXED_FILE;
  } else {
    io_uring_prep_rw(fixed ? IORING_OP_READ_FIXED : IORING_OP_READ, sqe,
                     job->from_fd, (const void*)(unsigned long)address,
                     lane->length - at, lane->from + at);
    if (job->flags & FILE_COPY_FROM_SLOT) sqe->flags = IOSQE_FIXED_FILE;
  }
  sqe->buf_index = job->buffer;
  user_data =
      (__u64)++lane->ticket << FILE_COPY_LANE_BITS | number % FILE_COPY_LANES;
  io_uring_sqe_set_data64(sqe, user_data);
  lane->expects = user_data;
  return true;
}

// Gives the lane its next block and prepares the request for it. False if there
// is none.
static __noinline bool file_copy_advance(struct io_uring* ring,
                                         const struct file_copy_memory* memory,
                                         struct file_copy_state* state,
                                         __u32 number) {
  struct file_copy_lane* lane = file_copy_lane_at(state, number);
  int i;

  // Extents can be empty.
  bpfgrant_for(i, 0, FILE_COPY_EXTENTS + 1) {
    if (state->last || !state->limit || state->extent >= state->job.extents ||
        bpfgrant_read_once(memory->job.quit))
      return false;
    if (file_copy_next_block(state, memory, lane))
      return file_copy_issue(ring, state, number);
  }
  return false;
}

// The source ends in the lane's block.
static __always_inline void file_copy_end(struct file_copy_state* state,
                                          const struct file_copy_lane* lane) {
  __u64 at = lane->from + lane->got;

  if (at < state->outcome.end) state->outcome.end = at;
  if (lane->extent == state->extent) file_copy_next_extent(state);
}

// Of several errors the one nearest to the beginning is told.
static __always_inline void file_copy_fail(struct file_copy_state* state,
                                           struct file_copy_lane* lane,
                                           __s32 error) {
  struct file_copy_outcome* outcome = &state->outcome;
  __u32 done = lane->writing ? lane->put : lane->got;
  __u64 skip = lane->skip + done;

  lane->failed = 1;
  if (outcome->reason &&
      (lane->extent > outcome->in_extent ||
       (lane->extent == outcome->in_extent && skip >= state->error_skip)))
    return;
  outcome->reason = FILE_COPY_FINE;
  file_copy_refuse(state,
                   lane->writing ? FILE_COPY_NOT_WRITTEN : FILE_COPY_NOT_READ,
                   error, lane->extent);
  outcome->error_at = (lane->writing ? lane->to : lane->from) + done;
  state->error_skip = skip;
}

// What the lane does after its request: false if its block is done with.
static __always_inline bool file_copy_decide(struct file_copy_state* state,
                                             struct file_copy_lane* lane,
                                             __s32 result) {
  __u32 asked =
      lane->writing ? lane->got - lane->put : lane->length - lane->got;
  __u32 moved = result > 0 ? result : 0;

  // A forged completion can claim any number.
  if (moved > asked) moved = asked;
  if ((result == -EINTR || result == -EAGAIN) && lane->patience--) return true;
  if (result < 0 || (lane->writing && result == 0)) {
    file_copy_fail(state, lane, result < 0 ? result : -EIO);
    return false;
  }
  if (lane->writing) {
    lane->put += moved;
    state->outcome.bytes += moved;
    state->outcome.short_writes += moved < asked;
    return lane->put < lane->got;
  }
  lane->got += moved;
  state->outcome.short_reads += moved < asked;
  if (moved && lane->got < lane->length) return true;
  if (!moved) file_copy_end(state, lane);
  lane->writing = 1;
  return lane->got > 0;
}

static __noinline int file_copy_take(struct io_uring* ring,
                                     struct file_copy_memory* memory,
                                     struct file_copy_state* state,
                                     __u64 user_data, __s32 result) {
  __u32 number = user_data % FILE_COPY_LANES;
  struct file_copy_lane* lane = file_copy_lane_at(state, number);

  if (user_data != lane->expects) {
    state->strangers += 1;
    return 0;
  }
  lane->expects = FILE_COPY_IDLE;
  if (!(file_copy_decide(state, lane, result)
            ? file_copy_issue(ring, state, number)
            : !lane->failed && file_copy_advance(ring, memory, state, number)))
    state->busy -= 1;
  return 0;
}

static __always_inline void file_copy_begin_lanes(
    struct io_uring* ring, struct file_copy_memory* memory,
    struct file_copy_state* state) {
  int i;

  bpfgrant_for(i, (int)state->begun, (int)state->job.lanes) {
    if (!io_uring_sq_space_left(ring) ||
        !file_copy_advance(ring, memory, state, i))
      break;
    state->begun += 1;
    state->busy += 1;
  }
}

// Takes completions, one after the other, and what comes at once of what
// follows from them. Ends when there is nothing to take.
static __always_inline void file_copy_work(struct bpfgrant_loop* loop,
                                           struct file_copy_memory* memory,
                                           struct file_copy_state* state) {
  struct io_uring* ring = &loop->ring;
  struct io_uring_cqe* cqe;
  int i;

  bpfgrant_for(i, 0, FILE_COPY_AT_ONCE) {
    __u64 user_data;
    __s32 result;

    if ((!io_uring_cq_ready(ring) || !io_uring_sq_space_left(ring)) &&
        !bpfgrant_go_on(loop))
      break;
    if (io_uring_peek_cqe(ring, &cqe)) break;
    user_data = bpfgrant_read_once(cqe->user_data);
    result = bpfgrant_read_once(cqe->res);
    // It is for the entry.
    if (user_data == BPFGRANT_WAKE) break;
    io_uring_cqe_seen(ring, cqe);
    file_copy_take(ring, memory, state, user_data, result);
    if (!state->busy) break;
  }
}

// Where to resume: at the next block, or at the first one that failed.
static __always_inline int file_copy_finish(struct file_copy_state* state,
                                            struct file_copy_memory* memory) {
  struct file_copy_outcome* outcome = &state->outcome;
  int i;

  state->running = 0;
  outcome->extent = state->extent;
  outcome->skip = state->skip;
  bpfgrant_for(i, 0, FILE_COPY_LANES) {
    const struct file_copy_lane* lane = file_copy_lane_at(state, i);

    // Those that a flood of strange completions left behind, too.
    if (!lane->failed && lane->expects == FILE_COPY_IDLE) continue;
    if (lane->extent > outcome->extent ||
        (lane->extent == outcome->extent &&
         lane->skip + lane->put >= outcome->skip))
      continue;
    outcome->extent = lane->extent;
    outcome->skip = lane->skip + lane->put;
  }
  memory->outcome = *outcome;
  return outcome->reason ? outcome->error : BPFGRANT_STOP_DONE;
}

BPFGRANT_LOOP(file_copy) {
  struct file_copy_memory* memory =
      bpfgrant_memory(loop, struct file_copy_memory);
  struct file_copy_state* state = bpfgrant_state(loop, struct file_copy_state);
  int answer;

  if (!memory) return BPFGRANT_STOP_GEOMETRY;
  if (!state->running) file_copy_begin(state, memory);
  if (state->begun < state->job.lanes && !state->last)
    file_copy_begin_lanes(&loop->ring, memory, state);
  if (state->busy) file_copy_work(loop, memory, state);
  if (state->strangers > FILE_COPY_STRANGERS) {
    file_copy_refuse(state, FILE_COPY_STRANGE, -ELOOP, state->extent);
    state->busy = 0;
  }
  if (!state->busy) return file_copy_finish(state, memory);
  answer = bpfgrant_wait(loop, 1);
  // A submission that fell short dropped requests: nobody can wait for them.
  if (answer != BPFGRANT_STOP_NONE) state->running = 0;
  return answer;
}
