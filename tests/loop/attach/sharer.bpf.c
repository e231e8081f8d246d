// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// A loop whose instances count together: each run adds one to what all grants of
// the session share, and shows it.

#include <bpfgrant/loop.h>

struct sharer_memory {
  __u32 unused[4];
  __s32 seen;  // of the whole session, after this run
};
struct sharer_shared {
  __u32 runs;
};
BPFGRANT_STATE(__u32);
BPFGRANT_SHARED(struct sharer_shared);

BPFGRANT_LOOP(sharer) {
  struct sharer_memory* memory = bpfgrant_memory(loop, struct sharer_memory);
  struct sharer_shared* shared = bpfgrant_shared(loop, struct sharer_shared);

  if (!memory || !shared) return BPFGRANT_STOP_GEOMETRY;
  memory->seen = __sync_fetch_and_add(&shared->runs, 1) + 1;
  return BPFGRANT_STOP_DONE;
}
