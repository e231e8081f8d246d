// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// What the holder of an io_latency finds in its maps: interface io_latency/1.
// No structure has a hole.

#ifndef BPFGRANT_IO_LATENCY_H_
#define BPFGRANT_IO_LATENCY_H_

#include <linux/types.h>

enum io_latency_limit {
  // Entries of `latencies`, one for each opcode (enum io_uring_op); the last is
  // for all that the kernel may have beyond.
  IO_LATENCY_OPCODES = 96,
  // Four to each doubling, so that a latency is known to a quarter at worst.
  // Bucket b counts those of at least
  //   b < 4 ? b : (4 + b % 4) << (b / 4 - 1)
  // nanoseconds that are below where the next one begins; the last, from 1.75
  // times 2^40 (32 minutes) on, has no end.
  IO_LATENCY_BUCKETS = 160,
  // Requests under way at once that are measured. When there are more, those
  // that have been so for this long make room.
  IO_LATENCY_IN_FLIGHT = 4096,
  IO_LATENCY_OLD_SECONDS = 10,
};

// An entry of `latencies`, since the grant began.
struct io_latency_histogram {
  __u64 submitted;
  __u64 completed;  // of those measured
  // Submitted and not measured: too many were under way, or they asked not to
  // be told of success (IOSQE_CQE_SKIP_SUCCESS).
  __u64 unmeasured;
  __u64 lost;      // at or above the threshold, but the ring buffer was full
  __u64 total_ns;  // of all that completed
  __u64 bucket[IO_LATENCY_BUCKETS];
};

// The one entry of `settings`. It may be rewritten at any moment; each
// completion goes by what it finds.
struct io_latency_settings {
  __u64 threshold_ns;  // events for what took so long or longer; 0: for none
};

// One record of the ring buffer `events`.
struct io_latency_event {
  __u64 completed_ns;  // CLOCK_MONOTONIC
  __u64 latency_ns;
  __u64 user_data;  // the request's
  __s32 result;
  __u32 opcode;
};

#endif  // BPFGRANT_IO_LATENCY_H_
