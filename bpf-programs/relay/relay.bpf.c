// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// Moves bytes between two sockets, both ways, for several pairs at once.
// README.md says how to use it, and relay.h what it and the process share.

#include "relay.h"

#include <bpfgrant/loop.h>
#include <linux/errno.h>

// In the kernel a step goes on with what its requests brought at once. In the
// process that would be a system call more.
#ifdef __bpf__
#define RELAY_ROUNDS 64
#else
#define RELAY_ROUNDS 1
#endif

#define RELAY_DIRECTIONS (2 * RELAY_PAIRS)

// What a request's callback says of it.
enum { RECEIVE, SEND, SHUT_DOWN };

// <sys/socket.h> is not for BPF.
enum { RELAY_SHUT_WR = 1, RELAY_SHUT_RDWR = 2 };

// One direction of a pair. The buffer is a ring: `head` and `tail` count all
// bytes that left it and came to it.
struct direction {
  __u64 received;
  __u64 sent;
  __s32 from;
  __s32 to;
  __s32 error;
  __u32 head;
  __u32 tail;
  __u32 asked_in;   // bytes that the request to receive is for
  __u32 asked_out;  // and the one to send
  __u8 open;
  __u8 receiving;  // a request is under way
  __u8 sending;    // to send, or to shut down
  __u8 at_end;     // the source has no more to give
  __u8 broken;     // it gave an error: not an end that was meant as one
  __u8 failed;     // the destination takes no more
  __u8 shut;       // the end was passed on
  __u8 drained;    // the last receive got less than it asked for
};

struct state {
  __u64 memory;  // its address in the process; 0: the config was not read
  __u32 flags;
  __u32 open_head;
  __u32 open;   // directions
  __u32 ended;  // pairs, since the last stop
  struct direction directions[RELAY_DIRECTIONS];
};

BPFGRANT_STATE(struct state);

static __always_inline void publish(struct relay_memory* memory,
                                    const struct direction* d, __u32 index) {
  struct relay_direction* to =
      &memory->pairs[index / 2 % RELAY_PAIRS].directions[index % 2];

  to->received = d->received;
  to->sent = d->sent;
  to->error = d->error;
}

static __always_inline void came(struct direction* d, __s32 result) {
  d->receiving = 0;
  if (result > 0 && (__u32)result <= d->asked_in) {
    d->tail += result;
    d->received += result;
    d->drained = (__u32)result < d->asked_in;
    return;
  }
  d->at_end = 1;
  if (result == 0) return;
  d->broken = 1;
  if (!d->error) d->error = result < 0 ? -result : EPROTO;
}

static __always_inline void went(struct direction* d, __s32 result) {
  d->sending = 0;
  if (result > 0 && (__u32)result <= d->asked_out) {
    d->head += result;
    d->sent += result;
    return;
  }
  d->failed = 1;
  if (!d->error) d->error = result < 0 ? -result : EPROTO;
}

static __always_inline bool take_completion(struct direction* d,
                                            unsigned request, __s32 result) {
  // Others the process wrote itself.
  if (request == RECEIVE && d->receiving)
    came(d, result);
  else if (request == SEND && d->sending && !d->shut)
    went(d, result);
  else if (request == SHUT_DOWN && d->sending && d->shut)
    d->sending = 0;
  else
    return false;
  return true;
}

// The sqe's last strokes.
static __always_inline void address(const struct state* state,
                                    struct io_uring_sqe* sqe, unsigned request,
                                    __u32 index) {
  bpfgrant_set_callback(sqe, request, index);
  if (state->flags & RELAY_FIXED_FILES)
    io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
}

static __always_inline void* place(const struct state* state, __u32 index,
                                   __u32 at) {
  return (void*)(state->memory + offsetof(struct relay_memory, buffers) +
                 (__u64)index * RELAY_BUFFER + at % RELAY_BUFFER);
}

static __always_inline void receive(struct io_uring* ring, struct state* state,
                                    struct direction* d, __u32 index) {
  __u32 room, behind;
  struct io_uring_sqe* sqe;

  // Nothing is under way that knows where the bytes are.
  if (d->head == d->tail && !d->sending) d->head = d->tail = 0;
  room = RELAY_BUFFER - (d->tail - d->head);
  behind = RELAY_BUFFER - d->tail % RELAY_BUFFER;
  if (!room || room > RELAY_BUFFER) return;
  sqe = io_uring_get_sqe(ring);
  if (!sqe) return;
  d->asked_in = room < behind ? room : behind;
  d->receiving = 1;
  io_uring_prep_recv(sqe, d->from, place(state, index, d->tail), d->asked_in,
                     0);
  // It was empty a moment ago.
  if (d->drained) sqe->ioprio = IORING_RECVSEND_POLL_FIRST;
  address(state, sqe, RECEIVE, index);
}

static __always_inline void send_rest(struct io_uring* ring,
                                      struct state* state, struct direction* d,
                                      __u32 index) {
  __u32 rest = d->tail - d->head;
  __u32 behind = RELAY_BUFFER - d->head % RELAY_BUFFER;
  struct io_uring_sqe* sqe = io_uring_get_sqe(ring);

  if (!sqe) return;
  d->asked_out = rest < behind ? rest : behind;
  d->sending = 1;
  io_uring_prep_send(sqe, d->to, place(state, index, d->head), d->asked_out,
                     MSG_NOSIGNAL);
  address(state, sqe, SEND, index);
}

// Tells one socket what became of the other: that no more will come, or, where
// something failed, that it is of no use any longer.
static __always_inline void pass_end(struct io_uring* ring, struct state* state,
                                     struct direction* d, __u32 index) {
  struct io_uring_sqe* sqe = io_uring_get_sqe(ring);

  if (!sqe) return;
  d->shut = 1;
  d->sending = 1;
  io_uring_prep_shutdown(
      sqe, d->failed ? d->from : d->to,
      d->failed || d->broken ? RELAY_SHUT_RDWR : RELAY_SHUT_WR);
  address(state, sqe, SHUT_DOWN, index);
}

// What a direction does next.
static __always_inline void go_on(struct io_uring* ring,
                                  struct relay_memory* memory,
                                  struct state* state, struct direction* d,
                                  __u32 index) {
  if (!d->sending && !d->shut) {
    if (d->head != d->tail && !d->failed)
      send_rest(ring, state, d, index);
    else if (d->at_end || d->failed)
      pass_end(ring, state, d, index);
  }
  if (!d->receiving && !d->at_end && !d->failed) receive(ring, state, d, index);
  publish(memory, d, index);
  if (!d->shut || d->sending || d->receiving) return;
  d->open = 0;
  state->open--;
  memory->pairs[index / 2 % RELAY_PAIRS].directions[index % 2].ended = 1;
  if (state->directions[(index ^ 1) % RELAY_DIRECTIONS].open) return;
  bpfgrant_store_release(&memory->pairs[index / 2 % RELAY_PAIRS].ended, 1);
  state->ended++;
}

static __always_inline void take_completions(struct io_uring* ring,
                                             struct relay_memory* memory,
                                             struct state* state) {
  struct io_uring_cqe* cqe;
  unsigned head, seen = 0;

  io_uring_for_each_cqe(ring, head, cqe) {
    unsigned request = bpfgrant_callback(cqe);
    __u32 index = bpfgrant_value(cqe) % RELAY_DIRECTIONS;
    struct direction* d = &state->directions[index];

    seen++;
    if (d->open && take_completion(d, request, bpfgrant_read_once(cqe->res)))
      go_on(ring, memory, state, d, index);
  }
  io_uring_cq_advance(ring, seen);
}

static __always_inline void open_direction(struct io_uring* ring,
                                           struct relay_memory* memory,
                                           struct state* state, __u32 index,
                                           __s32 from, __s32 to) {
  struct direction* d = &state->directions[index % RELAY_DIRECTIONS];

  __builtin_memset(d, 0, sizeof(*d));
  d->open = 1;
  d->from = from;
  d->to = to;
  state->open++;
  memory->pairs[index / 2 % RELAY_PAIRS].directions[index % 2].ended = 0;
  go_on(ring, memory, state, d, index);
}

// Begins with the pairs that the process opened.
static __always_inline void take_pairs(struct io_uring* ring,
                                       struct relay_memory* memory,
                                       struct state* state) {
  __u32 tail = bpfgrant_load_acquire(&memory->open_tail);
  int n;

  if (tail == state->open_head) return;
  bpfgrant_for(n, 0, RELAY_PAIRS) {
    __u32 pair =
        bpfgrant_read_once(memory->opened[state->open_head % RELAY_PAIRS]) %
        RELAY_PAIRS;
    __s32 one = bpfgrant_read_once(memory->pairs[pair].fds[0]);
    __s32 other = bpfgrant_read_once(memory->pairs[pair].fds[1]);

    if (state->open_head == tail) break;
    state->open_head++;
    // One that is in use stays as it is.
    if (state->directions[2 * pair].open ||
        state->directions[2 * pair + 1].open)
      continue;
    open_direction(ring, memory, state, 2 * pair, one, other);
    open_direction(ring, memory, state, 2 * pair + 1, other, one);
  }
  bpfgrant_store_release(&memory->open_head, state->open_head);
}

BPFGRANT_LOOP(relay) {
  struct relay_memory* memory = bpfgrant_memory(loop, struct relay_memory);
  struct state* state = bpfgrant_state(loop, struct state);
  int round;

  if (!memory) return BPFGRANT_STOP_GEOMETRY;
  if (!state->memory) {
    state->memory = bpfgrant_read_once(memory->config.memory);
    state->flags = bpfgrant_read_once(memory->config.flags);
    if (!state->memory) return -EINVAL;
  }
  take_pairs(&loop->ring, memory, state);
  bpfgrant_for(round, 0, RELAY_ROUNDS) {
    take_completions(&loop->ring, memory, state);
    if (RELAY_ROUNDS == 1) break;
    if (io_uring_submit(&loop->ring) < 0) return BPFGRANT_STOP_SUBMIT;
    if (!io_uring_cq_ready(&loop->ring)) break;
  }
  if (state->ended) {
    // What a direction of another pair prepared goes along.
    if (io_uring_submit(&loop->ring) < 0) return BPFGRANT_STOP_SUBMIT;
    state->ended = 0;
    return state->open ? BPFGRANT_STOP_PASSED : BPFGRANT_STOP_DONE;
  }
  if (!state->open) return BPFGRANT_STOP_DONE;
  return bpfgrant_wait(loop, 1);
}
