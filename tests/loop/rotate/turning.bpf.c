// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// A loop that counts its steps in two maps that belong together, and goes on
// writing one of them for as long as its process wants.

#include "turning.h"

#include <bpfgrant/loop.h>
#include <bpfgrant/swap.bpf.h>

#define COUNTS                             \
  {                                        \
    __uint(type, BPF_MAP_TYPE_ARRAY);      \
    __uint(max_entries, 1);                \
    __type(key, __u32);                    \
    __type(value, struct turning_count);   \
  }

BPFGRANT_SWAPPABLE(counts, 0, COUNTS);
BPFGRANT_SWAPPABLE(others, 1, COUNTS);

static long work(__u32 i, struct turning_count** count) {
  __sync_fetch_and_add(&(*count)->work, 1);
  return 0;
}

static __always_inline struct turning_count* add_step(void* map) {
  struct turning_count* count;
  __u32 zero = 0;

  count = bpf_map_lookup_elem(map, &zero);
  if (count) count->steps += 1;
  return count;
}

BPFGRANT_LOOP(turning) {
  struct turning_memory* memory = bpfgrant_memory(loop, struct turning_memory);
  __u64 swaps = bpfgrant_swaps();
  void* one = bpfgrant_now(counts);
  void* other = bpfgrant_now(others);
  struct turning_count* count;

  if (!memory) return BPFGRANT_STOP_GEOMETRY;
  if (bpfgrant_read_once(memory->stop)) return BPFGRANT_STOP_DONE;
  if (swaps != bpfgrant_swaps()) {
    one = bpfgrant_now(counts);
    other = bpfgrant_now(others);
  }
  if (!one || !other) return BPFGRANT_STOP_GEOMETRY;
  add_step(other);
  count = add_step(one);
  if (!count) return BPFGRANT_STOP_GEOMETRY;
  bpf_loop(bpfgrant_read_once(memory->work) & TURNING_WORK_MOST, work, &count,
           0);
  return bpfgrant_wait(loop, 0);
}
