// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// A loop as someone else would write it, who never saw loop.h: its own
// declarations, the kernel's functions called directly, the ring's geometry in
// constants that a loader sets. Made fit for the catalog by giving its function
// the name bpfgrant_step, and by that alone.

#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <bpf/bpf_helpers.h>

struct io_ring_ctx {};
struct iou_loop_params {
  __u32 cq_wait_idx;
} __attribute__((preserve_access_index));

extern int bpf_io_uring_submit_sqes(struct io_ring_ctx* ctx, __u32 nr) __ksym;
extern __u8* bpf_io_uring_get_region(struct io_ring_ctx* ctx, __u32 id,
                                     const __u64 size) __ksym;

const volatile unsigned n_sqes;
const volatile unsigned n_cqes;
const volatile unsigned cq_at;
const volatile unsigned cqes_at;

struct queue {
  __u32 head;
  __u32 tail;
};

// The job, and how far it is.
struct counts {
  __u64 wanted, issued, finished;
};
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct counts);
} job SEC(".maps");

__hidden int bpfgrant_step(struct io_ring_ctx* ctx,
                           struct iou_loop_params* params) {
  __u32 zero = 0;
  struct counts* counts = bpf_map_lookup_elem(&job, &zero);
  struct io_uring_sqe* sqe;
  struct queue* queue;
  __u8* rings;

  sqe = (void*)bpf_io_uring_get_region(ctx, 2, n_sqes * sizeof(*sqe));
  rings = bpf_io_uring_get_region(
      ctx, 1, cqes_at + n_cqes * sizeof(struct io_uring_cqe));
  if (!counts || !sqe || !rings) return 1;
  queue = (void*)(rings + (cq_at & 63));

  counts->finished += queue->tail - queue->head;
  queue->head = queue->tail;
  if (counts->finished >= counts->wanted) return 1;
  if (counts->issued < counts->wanted) {
    __builtin_memset(sqe, 0, sizeof(*sqe));
    sqe->opcode = IORING_OP_NOP;
    sqe->fd = -1;
    if (bpf_io_uring_submit_sqes(ctx, 1) != 1) return 1;
    counts->issued++;
  }
  params->cq_wait_idx = queue->head + 1;
  return 0;
}

char LICENSE[] SEC("license") = "GPL";
