// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// Measures how long a process's own io_uring requests take, from submission to
// completion. README.md says what for, and what its holder can do.
//
// Both tracepoints are the whole machine's: what is not an enrolled process's
// is left at the first look. Who submits and who completes is told by the
// process that runs, so that neither a request nor a ring can be taken for
// another's.

#include "io_latency.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include <bpfgrant/enrolled.bpf.h>

// Linux 6.4 has named it anew.
#ifdef IO_LATENCY_SUBMIT_SQE
#define SUBMISSION "io_uring_submit_sqe"
#else
#define SUBMISSION "io_uring_submit_req"
#endif

struct io_cqe {
  __u64 user_data;
  __s32 res;
} __attribute__((preserve_access_index));

struct io_kiocb {
  __u8 opcode;
  unsigned int flags;
  struct io_cqe cqe;
} __attribute__((preserve_access_index));

// io_kiocb.flags has IOSQE_CQE_SKIP_SUCCESS at the bit that it has in a
// request.
#define REQ_F_CQE_SKIP (1U << 6)

struct start {
  __u64 at_ns;
  __u32 opcode;
  __u32 reserved;
};

struct latencies {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, IO_LATENCY_OPCODES);
  __type(key, __u32);
  __type(value, struct io_latency_histogram);
};
BPFGRANT_OF_EACH_GRANT(struct latencies, latencies);

struct settings {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __uint(map_flags, BPF_F_MMAPABLE);
  __type(key, __u32);
  __type(value, struct io_latency_settings);
};
BPFGRANT_OF_EACH_GRANT(struct settings, settings);

struct events {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, 64 * 1024);
};
BPFGRANT_OF_EACH_GRANT(struct events, events);

// When each request under way began, by its address in the kernel: a flood of
// one grant's finds no room in its own and takes none of another's. Not every
// completion is seen (one that overflows the queue is not), so what is old
// makes room when there is none.
struct in_flight {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, IO_LATENCY_IN_FLIGHT);
  __type(key, __u64);
  __type(value, struct start);
};
BPFGRANT_OF_EACH_GRANT(struct in_flight, in_flight);

// Types that only maps of maps or none name are not whole in the object's BTF.
const struct start* const io_latency_start = 0;
const struct io_latency_histogram* const io_latency_entry = 0;
const struct io_latency_settings* const io_latency_setting = 0;
const struct io_latency_event* const io_latency_record = 0;
const enum io_latency_limit* const io_latency_limits = 0;

static __always_inline struct io_latency_histogram* histogram_of(
    const struct bpfgrant_enrolled* grant, __u32 opcode) {
  __u32 slot = grant->gate_slot;
  void* map = bpf_map_lookup_elem(&latencies, &slot);

  if (opcode >= IO_LATENCY_OPCODES) opcode = IO_LATENCY_OPCODES - 1;
  return map ? bpf_map_lookup_elem(map, &opcode) : (void*)0;
}

#define OLD_NS (IO_LATENCY_OLD_SECONDS * 1000000000ULL)

struct sweep {
  const struct bpfgrant_enrolled* grant;
  __u64 now_ns;
};

static long drop_old(void* starts, const __u64* key, const struct start* start,
                     struct sweep* sweep) {
  struct io_latency_histogram* histogram;

  if (sweep->now_ns - start->at_ns < OLD_NS) return 0;
  histogram = histogram_of(sweep->grant, start->opcode);
  if (bpf_map_delete_elem(starts, key) == 0 && histogram)
    __sync_fetch_and_add(&histogram->unmeasured, 1);
  return 0;
}

// Now and then only: a flood must not look through all of it with each request.
static __always_inline void make_room(const struct bpfgrant_enrolled* grant,
                                      void* starts, __u64 now_ns) {
  struct sweep sweep = {.grant = grant, .now_ns = now_ns};

  if (bpf_get_prandom_u32() % 256 == 0)
    bpf_for_each_map_elem(starts, drop_old, &sweep, 0);
}

SEC("tp_btf/" SUBMISSION)
int BPF_PROG(io_latency_submit, struct io_kiocb* request) {
  const struct bpfgrant_enrolled* grant = bpfgrant_enrolled();
  struct io_latency_histogram* histogram;
  __u64 key = (__u64)request;
  struct start start = {};
  void* starts;
  __u32 slot;

  if (!grant) return 0;
  slot = grant->gate_slot;
  start.opcode = request->opcode;
  histogram = histogram_of(grant, start.opcode);
  starts = bpf_map_lookup_elem(&in_flight, &slot);
  if (!histogram || !starts) return 0;

  __sync_fetch_and_add(&histogram->submitted, 1);
  start.at_ns = bpf_ktime_get_ns();
  if (!(request->flags & REQ_F_CQE_SKIP)) {
    if (bpf_map_update_elem(starts, &key, &start, BPF_ANY) == 0) return 0;
    make_room(grant, starts, start.at_ns);
  }
  __sync_fetch_and_add(&histogram->unmeasured, 1);
  return 0;
}

// The highest bit that is set. No jumps: there is nothing to be won by them.
static __always_inline __u32 log2_of(__u64 value) {
  __u32 result = 0, shift;

  shift = (value > 0xffffffff) << 5;
  value >>= shift;
  result |= shift;
  shift = (value > 0xffff) << 4;
  value >>= shift;
  result |= shift;
  shift = (value > 0xff) << 3;
  value >>= shift;
  result |= shift;
  shift = (value > 0xf) << 2;
  value >>= shift;
  result |= shift;
  shift = (value > 3) << 1;
  value >>= shift;
  result |= shift;
  return result | (__u32)(value >> 1);
}

static __always_inline __u32 bucket_of(__u64 latency_ns) {
  __u32 doublings, bucket;

  if (latency_ns < 4) return latency_ns;
  doublings = log2_of(latency_ns);
  bucket = (doublings - 1) * 4 + ((latency_ns >> (doublings - 2)) & 3);
  return bucket < IO_LATENCY_BUCKETS ? bucket : IO_LATENCY_BUCKETS - 1;
}

static __always_inline void tell(__u32 slot, const struct io_kiocb* request,
                                 const struct start* start, __u64 now_ns,
                                 struct io_latency_histogram* histogram) {
  void* map = bpf_map_lookup_elem(&events, &slot);
  struct io_latency_event* event;

  if (!map) return;
  event = bpf_ringbuf_reserve(map, sizeof(*event), 0);
  if (!event) {
    __sync_fetch_and_add(&histogram->lost, 1);
    return;
  }
  event->completed_ns = now_ns;
  event->latency_ns = now_ns - start->at_ns;
  event->user_data = BPF_CORE_READ(request, cqe.user_data);
  event->result = BPF_CORE_READ(request, cqe.res);
  event->opcode = start->opcode;
  bpf_ringbuf_submit(event, 0);
}

// The kernel shows the request as a mere address. It is none for completions
// that a request posts beside its own (multishot), which are not its end.
SEC("tp_btf/io_uring_complete")
int BPF_PROG(io_latency_complete, void* ring, void* request) {
  const struct bpfgrant_enrolled* grant = bpfgrant_enrolled();
  const struct io_latency_settings* wanted;
  struct io_latency_histogram* histogram;
  __u64 key = (__u64)request, now_ns, latency_ns;
  const struct start* found;
  struct start start;
  __u32 slot, zero = 0, bucket;
  void *starts, *map;

  if (!grant || !request) return 0;
  slot = grant->gate_slot;
  starts = bpf_map_lookup_elem(&in_flight, &slot);
  if (!starts) return 0;
  found = bpf_map_lookup_elem(starts, &key);
  if (!found) return 0;
  start = *found;
  now_ns = bpf_ktime_get_ns();
  bpf_map_delete_elem(starts, &key);
  histogram = histogram_of(grant, start.opcode);
  if (!histogram) return 0;

  latency_ns = now_ns - start.at_ns;
  bucket = bucket_of(latency_ns);
  if (bucket < IO_LATENCY_BUCKETS)
    __sync_fetch_and_add(&histogram->bucket[bucket], 1);
  __sync_fetch_and_add(&histogram->total_ns, latency_ns);
  __sync_fetch_and_add(&histogram->completed, 1);

  map = bpf_map_lookup_elem(&settings, &slot);
  wanted = map ? bpf_map_lookup_elem(map, &zero) : (void*)0;
  if (!wanted) return 0;
  __u64 threshold_ns = *(const volatile __u64*)&wanted->threshold_ns;
  if (threshold_ns && latency_ns >= threshold_ns)
    tell(slot, request, &start, now_ns, histogram);
  return 0;
}

// See ../LICENSE for why this says GPL.
char LICENSE[] SEC("license") = "GPL";
