/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Access to memory that the process and its loop share, with order. Included by
 * loop.h.
 */
#ifndef BPFGRANT_LOOP_ORDER_H_
#define BPFGRANT_LOOP_ORDER_H_

#define bpfgrant_read_once(place) (*(const volatile __typeof__(place)*)&(place))
#define bpfgrant_write_once(place, value) \
  (*(volatile __typeof__(place)*)&(place) = (value))

/* Has the compiler forget what it knows of an index that was checked, so that it
   works with the very register that the verifier saw the check of. */
#define bpfgrant_checked(index) asm volatile("" : "+r"(index))

#ifndef __bpf__
#define bpfgrant_load_acquire(pointer) \
  __atomic_load_n((pointer), __ATOMIC_ACQUIRE)
#define bpfgrant_store_release(pointer, value) \
  __atomic_store_n((pointer), (value), __ATOMIC_RELEASE)
#elif defined(__TARGET_ARCH_x86)
/* x86 orders loads among loads and stores among stores; the compiler must. */
#define bpfgrant_load_acquire(pointer)                       \
  ({                                                         \
    __typeof__(*(pointer)) value_ = bpfgrant_read_once(*(pointer)); \
    asm volatile("" ::: "memory");                           \
    value_;                                                  \
  })
#define bpfgrant_store_release(pointer, value) \
  ({                                           \
    asm volatile("" ::: "memory");             \
    bpfgrant_write_once(*(pointer), (value));  \
  })
#else
/*
 * BPF had no such accesses before Linux 6.15 and clang 21; its atomics that
 * return a value are full barriers.
 */
#define bpfgrant_load_acquire(pointer) __sync_fetch_and_add((pointer), 0)
#define bpfgrant_store_release(pointer, value) \
  ((void)__sync_lock_test_and_set((pointer), (value)))
#endif

#endif /* BPFGRANT_LOOP_ORDER_H_ */
