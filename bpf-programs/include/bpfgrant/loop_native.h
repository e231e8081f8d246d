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
};

/* A loop's native twin, as BPFGRANT_LOOP defines it: bpfgrant_native_NAME. */
struct bpfgrant_native_loop {
  const char* name;
  int (*step)(struct bpfgrant_loop* loop);
  size_t state_bytes;
};

#ifdef __cplusplus
}
#endif

#define bpfgrant_for(i, from, to) for ((i) = (from); (i) < (to); (i)++)

#define bpfgrant_memory(loop, type)                                     \
  ((loop)->memory_bytes >= sizeof(type) ? (type*)(loop)->memory : NULL)

#define BPFGRANT_STATE(type) enum { bpfgrant_state_bytes = sizeof(type) }
#define bpfgrant_state(loop, type) ((type*)(loop)->state)
/* Of the whole process: it has one session as a rule. */
#define BPFGRANT_SHARED(type) static type bpfgrant_shared_state
#define bpfgrant_shared(loop, type) (&bpfgrant_shared_state)

#define BPFGRANT_LOOP(name)                                      \
  static int name(struct bpfgrant_loop* loop);                   \
  const struct bpfgrant_native_loop bpfgrant_native_##name = {   \
      #name, name, bpfgrant_state_bytes};                        \
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
static inline int bpfgrant_wait(struct bpfgrant_loop* loop, unsigned count) {
  loop->wait_for = count;
  return BPFGRANT_STOP_NONE;
}

#endif /* BPFGRANT_LOOP_NATIVE_H_ */
