/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * A loop's events in the process: a ring with the layout of the kernel's
 * (kernel/bpf/ringbuf.c), so that one reader reads both. Included by
 * loop_native.h; the client library makes the ring.
 */
#ifndef BPFGRANT_LOOP_EVENTS_H_
#define BPFGRANT_LOOP_EVENTS_H_

#include <linux/types.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

/* What the reader writes: the head of a page of its own. */
struct bpfgrant_events_consumer {
  unsigned long position;
  /* The producer has made the fd readable since the reader last emptied it. */
  __u32 signalled;
};

struct bpfgrant_events {
  struct bpfgrant_events_consumer* consumer;
  unsigned long* position; /* the producer's; the head of a page, too */
  unsigned char* data;     /* `bytes`, mapped twice in a row */
  unsigned long bytes;     /* a power of two */
  int fd;                  /* an eventfd */
};

/* Before each event; BPF_RINGBUF_HDR_SZ bytes. */
struct bpfgrant_events_header {
  __u32 length;
  __u32 page; /* the kernel's own */
};

static inline void bpfgrant_events_wake(struct bpfgrant_events* events) {
  const __u64 one = 1;

  if (__atomic_exchange_n(&events->consumer->signalled, 1, __ATOMIC_SEQ_CST))
    return;
  /* It fails only where it is readable already. */
  if (write(events->fd, &one, sizeof(one)) != (ssize_t)sizeof(one)) return;
}

/* Before the reader looks for events: what comes later makes the fd readable
   anew. */
static inline void bpfgrant_events_empty(void* consumer, int fd) {
  struct bpfgrant_events_consumer* own =
      (struct bpfgrant_events_consumer*)consumer;
  __u64 count;

  if (!__atomic_exchange_n(&own->signalled, 0, __ATOMIC_SEQ_CST)) return;
  /* Where the producer has yet to write, the fd will be readable for nothing.
   */
  if (read(fd, &count, sizeof(count)) != (ssize_t)sizeof(count)) return;
}

/* Null: the loop has no events, which it did not declare. */
static inline bool bpfgrant_events_write(struct bpfgrant_events* events,
                                         const void* data, unsigned size,
                                         unsigned flags) {
  struct bpfgrant_events_header header = {size, 0};
  const unsigned long whole = (sizeof(header) + size + 7) & ~7UL;
  unsigned long at, consumed;

  if (!events) return false;
  at = *events->position;
  consumed = __atomic_load_n(&events->consumer->position, __ATOMIC_ACQUIRE);
  /* The reader can write anything there. */
  if (at - consumed > events->bytes || whole > events->bytes - 1 ||
      at - consumed > events->bytes - 1 - whole)
    return false;
  memcpy(events->data + (at & (events->bytes - 1)), &header, sizeof(header));
  memcpy(events->data + (at & (events->bytes - 1)) + sizeof(header), data,
         size);
  __atomic_store_n(events->position, at + whole, __ATOMIC_RELEASE);
  /* The reader looks for this event after it said that it had come so far:
     either it sees the one, or this sees the other. */
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if ((flags & 2 /* BPFGRANT_EMIT_WAKE */) ||
      (!(flags & 1 /* BPFGRANT_EMIT_QUIET */) &&
       __atomic_load_n(&events->consumer->position, __ATOMIC_ACQUIRE) == at))
    bpfgrant_events_wake(events);
  return true;
}

#endif /* BPFGRANT_LOOP_EVENTS_H_ */
