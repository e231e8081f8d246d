// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// Runs a list of request templates for each of a list of items, and decides by
// each result what comes next. README.md has the language.
//
// An item is worked on by a lane, with one request under way; a lane that is
// done with one item takes the next. What a lane does depends on nothing in the
// shared memory but the fields and words that operands name.

#include <linux/errno.h>

#include "chain_check.h"
#include "chain_decide.h"
#include "chain_request.h"
#include "chain_state.h"

BPFGRANT_STATE(struct chain_state);

// A request's user_data: its lane, and above it a number that no other request
// of the lane has, since completions can be forged and old ones can come late.
#define CHAIN_LANE_BITS 8

// Completions after which a step returns, so that the entry can look whether it
// is still wanted, and the kernel after signals.
#define CHAIN_AT_ONCE 256

// Prepares the lane's request. False if there is no room for it, which there is
// as long as the ring is as large as the manifest says.
static __noinline bool chain_issue(struct io_uring* ring,
                                   const struct chain_memory* memory,
                                   struct chain_state* state, __u32 number) {
  struct chain_lane* lane = chain_lane_at(state, number);
  const struct chain_step* step = &state->steps[lane->at % CHAIN_TEMPLATES];
  struct io_uring_sqe* sqe = io_uring_get_sqe(ring);
  __u64 user_data;

  if (!sqe) return false;
  *sqe = step->sqe;
  if (step->dynamic || (step->uses & CHAIN_USE_LEFT))
    chain_fill(memory, lane, number, step, sqe);
  user_data = (__u64)++lane->ticket << CHAIN_LANE_BITS | number % CHAIN_LANES;
  io_uring_sqe_set_data64(sqe, user_data);
  lane->expects = user_data;
  return true;
}

// The lane's next item, if there is one.
static __always_inline bool chain_begin_item(const struct chain_memory* memory,
                                             struct chain_state* state,
                                             struct chain_lane* lane) {
  if (state->last || state->outcome.next == state->end ||
      bpfgrant_read_once(memory->program.quit))
    return false;
  if (!state->requests) {
    chain_refuse(state, CHAIN_SPENT, 0, 0);
    state->last = 1;
    return false;
  }
  state->requests -= 1;
  lane->item = state->outcome.next++;
  lane->at = 0;
  lane->requests = state->item_requests - 1;
  lane->patience = state->patience;
  lane->seen = 0;
  lane->rest = 0;
  lane->bytes = 0;
  lane->ending = CHAIN_ITEM_PENDING;
  return true;
}

static __always_inline void chain_end_item(struct chain_memory* memory,
                                           struct chain_state* state,
                                           struct chain_lane* lane,
                                           __s32 last) {
  struct chain_result* result = &memory->results[lane->item % CHAIN_ITEMS];

  chain_fail_item(lane, CHAIN_ITEM_DONE, last);
  if (lane->ending == CHAIN_ITEM_DONE)
    state->outcome.done += 1;
  else
    state->outcome.failed += 1;
  state->outcome.bytes += lane->bytes;
  result->result = lane->result;
  result->from = lane->from;
  result->reserved = 0;
  result->bytes = lane->bytes;
  bpfgrant_store_release(&result->ending, (__u8)lane->ending);
}

// Whether the bounds allow the lane one more request.
static __always_inline bool chain_may_request(struct chain_state* state,
                                              struct chain_lane* lane,
                                              __s32 result) {
  if (!state->requests) {
    chain_refuse(state, CHAIN_SPENT, lane->at, 0);
    state->last = 1;
    chain_fail_item(lane, CHAIN_ITEM_SPENT, result);
    return false;
  }
  if (!lane->requests) {
    chain_fail_item(lane, CHAIN_ITEM_REQUESTS, result);
    return false;
  }
  state->requests -= 1;
  lane->requests -= 1;
  return true;
}

static __noinline int chain_take(struct io_uring* ring,
                                 struct chain_memory* memory,
                                 struct chain_state* state, __u64 user_data,
                                 __s32 result) {
  __u32 number = user_data % CHAIN_LANES;
  struct chain_lane* lane = chain_lane_at(state, number);
  const struct chain_step* step = &state->steps[lane->at % CHAIN_TEMPLATES];
  __u32 next;

  if (user_data != lane->expects) {
    state->strangers += 1;
    return 0;
  }
  lane->expects = CHAIN_IDLE;
  next =
      chain_decide(state, lane, step, result, chain_note(lane, step, result));
  if (next >= state->templates || !chain_may_request(state, lane, result)) {
    chain_end_item(memory, state, lane, result);
    if (!chain_begin_item(memory, state, lane)) {
      state->busy -= 1;
      return 0;
    }
  } else {
    lane->at = next;
  }
  if (!chain_issue(ring, memory, state, number)) state->busy -= 1;
  return 0;
}

static __always_inline void chain_begin_lanes(struct io_uring* ring,
                                              struct chain_memory* memory,
                                              struct chain_state* state) {
  int i;

  bpfgrant_for(i, (int)state->begun, (int)state->wide) {
    struct chain_lane* lane = chain_lane_at(state, i);

    if (!io_uring_sq_space_left(ring) || !chain_begin_item(memory, state, lane))
      break;
    if (chain_issue(ring, memory, state, i)) state->busy += 1;
    state->begun += 1;
  }
}

static __always_inline int chain_finish(struct chain_state* state,
                                        struct chain_memory* memory) {
  state->running = 0;
  state->outcome.requests = state->limit - state->requests;
  memory->outcome = state->outcome;
  switch (state->outcome.reason) {
    case CHAIN_FINE:
      return BPFGRANT_STOP_DONE;
    case CHAIN_SPENT:
      return -E2BIG;
    case CHAIN_STRANGE:
      return -ELOOP;
    default:
      return -EINVAL;
  }
}

// Takes completions, one after the other, and what comes at once of what
// follows from them. Ends when there is nothing to take.
static __always_inline void chain_work(struct bpfgrant_loop* loop,
                                       struct chain_memory* memory,
                                       struct chain_state* state) {
  struct io_uring* ring = &loop->ring;
  struct io_uring_cqe* cqe;
  int i;

  bpfgrant_for(i, 0, CHAIN_AT_ONCE) {
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
    chain_take(ring, memory, state, user_data, result);
    if (!state->busy) break;
  }
}

BPFGRANT_LOOP(chain) {
  struct chain_memory* memory = bpfgrant_memory(loop, struct chain_memory);
  struct chain_state* state = bpfgrant_state(loop, struct chain_state);
  int answer;

  if (!memory) return BPFGRANT_STOP_GEOMETRY;
  if (!state->running && chain_begin(state, memory))
    return chain_finish(state, memory);
  if (state->begun < state->wide) chain_begin_lanes(&loop->ring, memory, state);
  if (state->busy) chain_work(loop, memory, state);
  if (state->strangers > CHAIN_STRANGERS) {
    chain_refuse(state, CHAIN_STRANGE, 0, 0);
    state->busy = 0;
  }
  if (!state->busy) return chain_finish(state, memory);
  answer = bpfgrant_wait(loop, 1);
  // A submission that fell short dropped requests: nobody can wait for them.
  if (answer != BPFGRANT_STOP_NONE) state->running = 0;
  return answer;
}
