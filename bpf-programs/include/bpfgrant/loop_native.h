/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * loop.h in the process: the same source, with liburing itself. The client
 * library (client/bpfgrant/loop.h) calls the step.
 */
#ifndef BPFGRANT_LOOP_NATIVE_H_
#define BPFGRANT_LOOP_NATIVE_H_

#include <liburing.h>
#include <stdbool.h>
#include <stddef.h>

#include <bpfgrant/loop_events.h>
#include <bpfgrant/loop_order.h>
#include <bpfgrant/loop_status.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One loop in a process; the client library's to make. */
struct bpfgrant_loop {
  struct io_uring ring;
  void* memory;
  size_t memory_bytes;
  void* state;  /* zero at first */
  unsigned wait_for; /* completions, for which bpfgrant_wait asked */
  struct bpfgrant_events* events; /* null if the loop declares none */
};

/* A loop's native twin, as BPFGRANT_LOOP defines it: bpfgrant_native_NAME. */
struct bpfgrant_native_loop {
  const char* name;
  int (*step)(struct bpfgrant_loop* loop);
  size_t state_bytes;
  const size_t* events_bytes; /* 0: no BPFGRANT_EVENTS */
};

#ifdef __cplusplus
}
#endif

/* Of use to the verifier only. */
#ifndef __noinline
#define __noinline
#endif

#define bpfgrant_for(i, from, to) for ((i) = (from); (i) < (to); (i)++)

#define bpfgrant_memory(loop, type)                                     \
  ((loop)->memory_bytes >= sizeof(type) ? (type*)(loop)->memory : NULL)

#define BPFGRANT_STATE(type) enum { bpfgrant_state_bytes = sizeof(type) }
#define bpfgrant_state(loop, type) ((type*)(loop)->state)
/* Of the whole process: it has one session as a rule. */
#define BPFGRANT_SHARED(type) static type bpfgrant_shared_state
#define bpfgrant_shared(loop, type) (&bpfgrant_shared_state)

#ifndef __cplusplus
/* 0, unless BPFGRANT_EVENTS defines it with another value. */
static const size_t bpfgrant_events_bytes;
#endif
#define BPFGRANT_EVENTS(bytes) static const size_t bpfgrant_events_bytes = bytes
#define bpfgrant_emit(loop, data, size, flags) \
  bpfgrant_events_write((loop)->events, (data), (size), (flags))

#define BPFGRANT_PART(name, ...) \
  static int name(struct bpfgrant_loop* loop, __VA_ARGS__)
#define bpfgrant_part(loop, name, ...) name((loop), __VA_ARGS__)

#define bpfgrant_copy(to, from, size) memmove((to), (from), (size))

#define BPFGRANT_LOOP(name)                                      \
  static int name(struct bpfgrant_loop* loop);                   \
  const struct bpfgrant_native_loop bpfgrant_native_##name = {   \
      #name, name, bpfgrant_state_bytes, &bpfgrant_events_bytes};\
  static int name(struct bpfgrant_loop* loop)

/* liburing's own, ended by a completion that is no request's. */
#undef io_uring_for_each_cqe
#define io_uring_for_each_cqe(ring, head, cqe)                               \
  for ((head) = *(ring)->cq.khead;                                           \
       ((cqe) = (head) != io_uring_smp_load_acquire((ring)->cq.ktail)        \
                    ? &(ring)->cq.cqes[(head) & *(ring)->cq.kring_mask]      \
                    : NULL) != NULL &&                                       \
       (cqe)->user_data != BPFGRANT_WAKE;                                    \
       (head)++)

/* The submission itself is the library's, one system call with the wait. */
static inline bool bpfgrant_go_on(struct bpfgrant_loop* loop) {
  (void)loop;
  return false;
}

static inline int bpfgrant_wait(struct bpfgrant_loop* loop, unsigned count) {
  loop->wait_for = count;
  return BPFGRANT_STOP_NONE;
}

#endif /* BPFGRANT_LOOP_NATIVE_H_ */
