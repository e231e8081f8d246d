/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * To write an io_uring loop: a function that looks at completions, prepares
 * requests, and says whether to go on. Compiled for BPF it runs in the kernel,
 * on the ring of a process without privilege; compiled natively, the same
 * source runs in that process with plain liburing.
 *
 *   #include <bpfgrant/loop.h>
 *
 *   struct echo_memory { __s32 fd; char buffer[4096]; ... };
 *
 *   BPFGRANT_LOOP(echo) {
 *     struct io_uring* ring = &loop->ring;
 *     struct echo_memory* memory = bpfgrant_memory(loop, struct echo_memory);
 *     struct io_uring_cqe* cqe;
 *     unsigned head, seen = 0;
 *
 *     if (!memory) return BPFGRANT_STOP_GEOMETRY;
 *     io_uring_for_each_cqe(ring, head, cqe) { ...; seen++; }
 *     io_uring_cq_advance(ring, seen);
 *     ...
 *     return bpfgrant_wait(loop, 1);
 *   }
 *
 * Names that begin with io_uring_ are liburing's and mean what they mean there;
 * those that begin with bpfgrant_ are explained below. What is behind them is
 * loop.bpf.h or loop_native.h.
 *
 * The step, as the function is called, runs to its end without sleeping. It is
 * called again when what it waits for has come, or earlier: it must bear being
 * called with nothing new. On one ring steps are serialized; loops on several
 * rings run in parallel.
 *
 * It answers:
 *   bpfgrant_wait(loop, n)  go on once n completions are there
 *   enum bpfgrant_stop      stop; the process's call returns
 *   -errno                  stop with BPFGRANT_STOP_ERROR
 *
 * Everything in the ring and in the memory is the process's to change at any
 * moment: read once (bpfgrant_read_once), check what was read, use that.
 *
 * What a request points to (buffers, names, vectors) is named by its address in
 * the process, in either place: in the kernel the loop sees the memory at
 * another address, so &memory->buffer is none that a request can use. Have the
 * process put the address of its memory into it, and add offsetof() to that;
 * or register buffers and use offsets.
 */
#ifndef BPFGRANT_LOOP_H_
#define BPFGRANT_LOOP_H_

#include <bpfgrant/loop_status.h>

#ifdef __bpf__
#include <bpfgrant/loop.bpf.h>
#else
#include <bpfgrant/loop_native.h>
#endif

/*
 * The same in both places:
 *
 * BPFGRANT_LOOP(name) { ... }
 *     Defines the step; `loop` is its only argument, a struct bpfgrant_loop *.
 *
 * &loop->ring
 *     The ring, for liburing's functions.
 *
 * type *bpfgrant_memory(loop, type)
 *     The memory that the process registered for the loop, which is at least
 *     one `type`; null if it has not so many bytes. An index into it has to be
 *     bounded for the verifier to see: memory->slot[i % SLOTS].
 *
 * BPFGRANT_STATE(type)                  at file scope, once
 * type *bpfgrant_state(loop, type)
 *     The loop's own state, zero at first. It lives across steps and stops and
 *     the process cannot touch it (in the kernel).
 *
 * BPFGRANT_SHARED(type)                 at file scope, once
 * type *bpfgrant_shared(loop, type)
 *     State that all loops of one session with this program share: the map
 *     `shared_state`, for which the manifest says SCOPE_SESSION. May be null.
 *     Several rings and threads use it at once: use atomics.
 *
 * BPFGRANT_EVENTS(bytes)                at file scope, once
 * bool bpfgrant_emit(loop, data, size, flags)
 *     Copies `size` bytes into the ring buffer `events` of so many bytes (a
 *     power of two, whole pages), for a reader in the process: the map `events`
 *     of the manifest. False when that is full. `flags` says whether a reader
 *     that sleeps is woken, which is dear: enum bpfgrant_emit_flags. Where a
 *     step has several events, let only its last one wake, or emit them as one.
 *
 * bpfgrant_copy(to, from, size)
 *     Copies bytes within what the loop can write, towards lower addresses where
 *     both overlap; the verifier must see that `size` is no more than what is
 *     there.
 *
 * BPFGRANT_PART(name, arguments) { ... }
 * int bpfgrant_part(loop, name, arguments)
 *     A part of the step, and its call. The verifier goes through it by itself,
 *     once, which keeps the time low that a long loop takes to load. Arguments
 *     are numbers, of which it knows nothing, and pointers to structures in the
 *     memory, which may be null; `loop` is there for bpfgrant_state and bpfgrant_emit
 *     alone.
 *
 * bpfgrant_for(i, from, to) { ... }
 *     for (i = from; i < to; i++), for an int i and bounds that the verifier
 *     need not know. What the body counts must not decide anything: the
 *     verifier would follow each value. Keep such counters in the state.
 *
 * int bpfgrant_wait(loop, n)
 *     Submits what was prepared and goes on when the completion queue holds n
 *     completions; n == 0: at once. To be returned by the step.
 *
 * bool bpfgrant_go_on(loop)
 *     Submits what was prepared, and says whether completions are there at
 *     once: the step can take them instead of returning, which saves the way
 *     through the kernel's loop and the entry. It has to bound how often. What
 *     it takes so is not in a trace. In the process it does nothing and is
 *     false, since a submission is a system call there.
 *
 * bpfgrant_set_callback(sqe, callback, value)
 * unsigned bpfgrant_callback(cqe)
 * __u64 bpfgrant_value(cqe)
 *     Dispatch: the request's user_data says which callback its completion is
 *     for, 0 to 127, and carries 56 bits of its own.
 *
 * bpfgrant_read_once(place), bpfgrant_write_once(place, value)
 *     One access, which the compiler neither repeats nor splits.
 * bpfgrant_load_acquire(place), bpfgrant_store_release(place, value)
 *     With the order that a ring of one's own in the memory needs.
 *
 * bpfgrant_pass(queue, cqe)
 *     Passes a completion on to the process: copies it into `queue`, a struct
 *     bpfgrant_cqe_queue in the memory. False when that is full. (The other
 *     way: leave the completion in the queue and stop with
 *     BPFGRANT_STOP_PASSED.)
 */

/*
 * Completions passed on, in memory that both sides see. The loop produces, the
 * process consumes.
 */
#define BPFGRANT_CQE_QUEUE_ENTRIES 64
struct bpfgrant_cqe_queue {
  __u32 head; /* the process's */
  __u32 tail; /* the loop's */
  struct io_uring_cqe cqes[BPFGRANT_CQE_QUEUE_ENTRIES];
};

/* Whether an event wakes a reader that sleeps. */
enum bpfgrant_emit_flags {
  BPFGRANT_EMIT = 0,       /* if it had read all that came before */
  BPFGRANT_EMIT_QUIET = 1, /* no */
  BPFGRANT_EMIT_WAKE = 2,  /* yes */
};

static inline bool bpfgrant_pass(struct bpfgrant_cqe_queue* queue,
                                 const struct io_uring_cqe* cqe) {
  __u32 tail = bpfgrant_read_once(queue->tail);
  struct io_uring_cqe* to = &queue->cqes[tail % BPFGRANT_CQE_QUEUE_ENTRIES];

  if (tail - bpfgrant_load_acquire(&queue->head) >= BPFGRANT_CQE_QUEUE_ENTRIES)
    return false;
  to->user_data = cqe->user_data;
  to->res = cqe->res;
  to->flags = cqe->flags;
  bpfgrant_store_release(&queue->tail, tail + 1);
  return true;
}

static inline void bpfgrant_set_callback(struct io_uring_sqe* sqe,
                                         unsigned callback, __u64 value) {
  io_uring_sqe_set_data64(
      sqe, (__u64)(callback & 0x7f) << 56 | (value & ((1ULL << 56) - 1)));
}

static inline unsigned bpfgrant_callback(const struct io_uring_cqe* cqe) {
  return bpfgrant_read_once(cqe->user_data) >> 56;
}

static inline __u64 bpfgrant_value(const struct io_uring_cqe* cqe) {
  return bpfgrant_read_once(cqe->user_data) & ((1ULL << 56) - 1);
}

#endif /* BPFGRANT_LOOP_H_ */
