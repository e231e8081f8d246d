// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// What statistics.bpf.c writes, record by record.

#ifndef BPF_PROGRAMS_CENSUS_STATISTICS_H_
#define BPF_PROGRAMS_CENSUS_STATISTICS_H_

#include <linux/types.h>

// More than any kernel is built for (CONFIG_NR_CPUS).
#define BPFGRANT_MOST_PROCESSORS 8192

struct bpfgrant_program_statistics {
  __u32 id;
  __u32 reserved;
  __u64 runs;
  __u64 run_ns;
  __u64 misses;
};

struct bpfgrant_ring_buffer_statistics {
  __u32 id;
  __u32 type;      // enum bpf_map_type
  __u64 mask;      // size - 1
  __u64 consumer;  // positions as the client, too, can write them
  __u64 producer;
};

#endif  // BPF_PROGRAMS_CENSUS_STATISTICS_H_
