// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// What the kernel gives to a program that drives an io_uring: its types, its
// functions and the regions of a ring, as Linux 7.1 has them
// (io_uring/bpf-ops.c, io_uring/loop.h).

#ifndef BPFGRANT_LOOP_KERNEL_BPF_H_
#define BPFGRANT_LOOP_KERNEL_BPF_H_

// clang-format off
#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <linux/version.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <stdbool.h>
// clang-format on

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 4, 0)
// What bpf_for of bpf_helpers.h counts with; newer headers have it.
struct bpf_iter_num {
  __u64 __opaque[1];
} __attribute__((aligned(8)));
#endif

// A ring, opaque. Defined, although empty: libbpf calls the functions'
// prototypes incompatible with a forward declaration.
struct io_ring_ctx {};

struct iou_loop_params {
  // The absolute index of the completion to wait for: the ring's tail once it
  // is there. A hint: a loop must bear being woken early. 0 at each enter, and
  // then what the last step left.
  __u32 cq_wait_idx;
} __attribute__((preserve_access_index));

// What a step answers to the kernel.
enum { BPFGRANT_KERNEL_CONTINUE = 0, BPFGRANT_KERNEL_STOP = 1 };

// Regions. All of it is memory that the process can change at any moment.
enum {
  BPFGRANT_REGION_MEMORY = 0,  // registered by the process
  BPFGRANT_REGION_CQ = 1,      // struct bpfgrant_rings
  BPFGRANT_REGION_SQ = 2,      // struct io_uring_sqe[]
};

// The head of the completion ring's region (struct io_rings).
struct bpfgrant_rings {
  __u32 sq_head, sq_tail, cq_head, cq_tail;
  __u32 unused[12];
  struct io_uring_cqe cqes[];
};
_Static_assert(__builtin_offsetof(struct bpfgrant_rings, cqes) == 64,
               "where the kernel puts them");

// Hands the first `count` entries of the submission queue to the kernel
// (IORING_SETUP_SQ_REWIND). How many it took, or -errno.
extern int bpf_io_uring_submit_sqes(struct io_ring_ctx* ring,
                                    __u32 count) __ksym;
// A region's memory, or null if it has fewer than `size` bytes; `size` must be
// a constant to the verifier.
extern __u8* bpf_io_uring_get_region(struct io_ring_ctx* ring, __u32 region,
                                     const __u64 size) __ksym;

// The ring's geometry, which the loader sets from the manifest before the load.
extern const volatile __u32 bpfgrant_sq_entries;
extern const volatile __u32 bpfgrant_cq_entries;

#endif  // BPFGRANT_LOOP_KERNEL_BPF_H_
