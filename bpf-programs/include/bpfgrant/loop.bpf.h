// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// loop.h in the kernel: liburing's functions over the regions of a ring made
// with IORING_SETUP_NO_SQARRAY and IORING_SETUP_SQ_REWIND, and what is
// bpfgrant's own.

#ifndef BPFGRANT_LOOP_BPF_H_
#define BPFGRANT_LOOP_BPF_H_

#include <bpfgrant/loop_kernel.bpf.h>
#include <bpfgrant/loop_order.h>
#include <bpfgrant/loop_prepare.bpf.h>

struct io_uring {
  struct io_ring_ctx* kernel;
  struct bpfgrant_rings* rings;
  struct io_uring_sqe* sqes;
};

struct bpfgrant_loop {
  struct io_uring ring;
  struct iou_loop_params* params;
};

// Of the entry object: bpf_io_uring_submit_sqes, counted and traced.
extern int bpfgrant_submit(struct io_ring_ctx* ring, __u32 count) __hidden;

// Requests prepared and not submitted. In memory and not on the stack, where
// the verifier would follow each of its values.
static __u32 bpfgrant_prepared;

static __always_inline unsigned io_uring_cq_ready(const struct io_uring* ring) {
  __u32 ready = bpfgrant_read_once(ring->rings->cq_tail) -
                bpfgrant_read_once(ring->rings->cq_head);

  // The process can write anything there.
  return ready <= bpfgrant_cq_entries ? ready : bpfgrant_cq_entries;
}

// The completion with the absolute index `head`; null if it is not a request's:
// that the entry takes at the next step.
static __always_inline struct io_uring_cqe* bpfgrant_cqe_at(
    const struct io_uring* ring, __u32 head) {
  __u32 index = head & (bpfgrant_cq_entries - 1);
  struct io_uring_cqe* cqe;

  if (index >= bpfgrant_cq_entries) return NULL;
  cqe = &ring->rings->cqes[index];
  return bpfgrant_read_once(cqe->user_data) != BPFGRANT_WAKE ? cqe : NULL;
}

#define BPFGRANT_UNIQUE_(name, line) name##line
#define BPFGRANT_UNIQUE(name, line) BPFGRANT_UNIQUE_(name, line)

// As in liburing, `head` is the absolute index, and the loop does not advance
// the ring. A counter that the body increments must not decide anything: the
// verifier would follow each of its values.
#define io_uring_for_each_cqe(ring, head, cqe)                                 \
  int BPFGRANT_UNIQUE(bpfgrant_i_, __LINE__);                                  \
  __u32 BPFGRANT_UNIQUE(bpfgrant_from_, __LINE__) =                            \
      bpfgrant_read_once((ring)->rings->cq_head);                              \
  __u32 BPFGRANT_UNIQUE(bpfgrant_count_, __LINE__) = io_uring_cq_ready(ring);  \
  bpf_for(BPFGRANT_UNIQUE(bpfgrant_i_, __LINE__), 0,                           \
          (int)BPFGRANT_UNIQUE(bpfgrant_count_, __LINE__))                     \
    if (((head) = BPFGRANT_UNIQUE(bpfgrant_from_, __LINE__) +                  \
                  BPFGRANT_UNIQUE(bpfgrant_i_, __LINE__),                      \
         (cqe) = bpfgrant_cqe_at((ring), (head))) == NULL)                     \
      break;                                                                   \
    else

static __always_inline int io_uring_peek_cqe(const struct io_uring* ring,
                                             struct io_uring_cqe** cqe) {
  *cqe = io_uring_cq_ready(ring) 
             ? bpfgrant_cqe_at(ring, bpfgrant_read_once(ring->rings->cq_head))
             : NULL;
  return *cqe ? 0 : -11;  // EAGAIN
}

static __always_inline void io_uring_cq_advance(struct io_uring* ring,
                                                unsigned count) {
  bpfgrant_store_release(&ring->rings->cq_head,
                         bpfgrant_read_once(ring->rings->cq_head) + count);
}

static __always_inline void io_uring_cqe_seen(struct io_uring* ring,
                                              const struct io_uring_cqe* cqe) {
  if (cqe) io_uring_cq_advance(ring, 1);
}

static __always_inline unsigned io_uring_sq_ready(const struct io_uring* ring) {
  return bpfgrant_prepared;
}

static __always_inline unsigned io_uring_sq_space_left(
    const struct io_uring* ring) {
  __u32 prepared = bpfgrant_prepared;

  return prepared < bpfgrant_sq_entries ? bpfgrant_sq_entries - prepared : 0;
}

static __always_inline struct io_uring_sqe* io_uring_get_sqe(
    struct io_uring* ring) {
  __u32 index = bpfgrant_read_once(bpfgrant_prepared);

  if (index >= bpfgrant_sq_entries) return NULL;
  bpfgrant_write_once(bpfgrant_prepared, index + 1);
  return &ring->sqes[index];
}

// Requests taken, or -errno. Those not taken are dropped.
static __always_inline int io_uring_submit(struct io_uring* ring) {
  __u32 prepared = bpfgrant_prepared;

  if (!prepared) return 0;
  bpfgrant_prepared = 0;
  return bpfgrant_submit(ring->kernel, prepared);
}

// Whether a submission in the middle of a step fell short.
static bool bpfgrant_fell_short;

static __always_inline bool bpfgrant_go_on(struct bpfgrant_loop* loop) {
  __u32 prepared = bpfgrant_prepared;

  if (io_uring_submit(&loop->ring) != (int)prepared) {
    bpfgrant_fell_short = true;
    return false;
  }
  return io_uring_cq_ready(&loop->ring) != 0;
}

static __always_inline int bpfgrant_wait(struct bpfgrant_loop* loop,
                                         unsigned count) {
  __u32 prepared = bpfgrant_prepared;
  int taken = io_uring_submit(&loop->ring);

  if (taken != (int)prepared || bpfgrant_fell_short) {
    bpfgrant_fell_short = false;
    return BPFGRANT_STOP_SUBMIT;
  }
  loop->params->cq_wait_idx =
      bpfgrant_read_once(loop->ring.rings->cq_head) + count;
  return BPFGRANT_STOP_NONE;
}

#define bpfgrant_for(i, from, to) bpf_for(i, from, to)

#define bpfgrant_memory(loop, type)                               \
  ((type*)bpf_io_uring_get_region((loop)->ring.kernel,            \
                                  BPFGRANT_REGION_MEMORY, sizeof(type)))

// "used", or clang would split it into variables whose types do not fit.
#define BPFGRANT_STATE(type) \
  static type bpfgrant_own_state __attribute__((used))
#define bpfgrant_state(loop, type) (&bpfgrant_own_state)

// The map `shared_state` of the manifest: an array of one `type`, declared with
// BPFGRANT_SHARED(type) at file scope.
#define BPFGRANT_SHARED(what)             \
  struct {                                \
    __uint(type, BPF_MAP_TYPE_ARRAY);     \
    __uint(max_entries, 1);               \
    __type(key, __u32);                   \
    __type(value, what);                  \
  } shared_state SEC(".maps")
#define bpfgrant_shared(loop, type)                    \
  ({                                                   \
    __u32 zero_ = 0;                                   \
    (type*)bpf_map_lookup_elem(&shared_state, &zero_);       \
  })

// The map `events` of the manifest, a ring buffer.
#define BPFGRANT_EVENTS(bytes)          \
  struct {                              \
    __uint(type, BPF_MAP_TYPE_RINGBUF); \
    __uint(max_entries, bytes);         \
  } events SEC(".maps")
#define bpfgrant_emit(loop, data, size, flags) \
  (bpf_ringbuf_output(&events, (void*)(data), (size), (flags)) == 0)

// A helper that copies at the processor's speed, which a loop of loads and
// stores does not.
#define bpfgrant_copy(to, from, size) bpf_probe_read_kernel((to), (size), (from))

// Null if the kernel's ring is smaller than the manifest says.
static __always_inline bool bpfgrant_open(struct bpfgrant_loop* loop,
                                          struct io_ring_ctx* kernel,
                                          struct iou_loop_params* params) {
  loop->params = params;
  loop->ring.kernel = kernel;
  loop->ring.sqes = (void*)bpf_io_uring_get_region(
      kernel, BPFGRANT_REGION_SQ,
      bpfgrant_sq_entries * sizeof(struct io_uring_sqe));
  loop->ring.rings = (void*)bpf_io_uring_get_region(
      kernel, BPFGRANT_REGION_CQ,
      sizeof(struct bpfgrant_rings) +
          bpfgrant_cq_entries * sizeof(struct io_uring_cqe));
  return loop->ring.sqes && loop->ring.rings;
}

// A function that the verifier goes through by itself, once, and not at each
// call with all that the caller knows.
// There, `loop` is nothing; what it may be used for does not look at it.
static struct bpfgrant_loop* const loop __attribute__((unused)) = NULL;
#define BPFGRANT_PART(name, ...) \
  __attribute__((noinline)) int name(__VA_ARGS__)
#define bpfgrant_part(loop, name, ...) name(__VA_ARGS__)

#define BPFGRANT_LOOP(name)                                            \
  static __always_inline int name(struct bpfgrant_loop* loop);         \
  __hidden int bpfgrant_step(struct io_ring_ctx* kernel,               \
                             struct iou_loop_params* params) {         \
    struct bpfgrant_loop loop;                                         \
                                                                       \
    bpfgrant_prepared = 0;                                             \
    if (!bpfgrant_open(&loop, kernel, params))                         \
      return BPFGRANT_STOP_GEOMETRY;                                   \
    return name(&loop);                                                \
  }                                                                    \
  char bpfgrant_author_license[] SEC("license") = "GPL";               \
  static __always_inline int name(struct bpfgrant_loop* loop)

#endif  // BPFGRANT_LOOP_BPF_H_
