// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// What BPF programs did and how full BPF ring buffers are, of all of them, as
// the kernel's iterators come by: who holds no fd of them can ask in no other
// way. daemon/loader/statistics.cc reads what is written here.

#include "statistics.h"

#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "iterators.bpf.h"

struct bpf_map {
  __u32 id;
  enum bpf_map_type map_type;
} __attribute__((preserve_access_index));

struct bpf_ringbuf {
  __u64 mask;
  unsigned long consumer_pos;
  unsigned long producer_pos;
} __attribute__((preserve_access_index));

struct bpf_ringbuf_map {
  struct bpf_map map;
  struct bpf_ringbuf* rb;
} __attribute__((preserve_access_index));

struct bpf_prog_aux {
  __u32 id;
} __attribute__((preserve_access_index));

// The kernel's type is a structure of its own around 64 bits.
typedef struct {
  struct local {
    __u64 counter;
  } v;
} u64_stats_t;

struct bpf_prog_stats {
  u64_stats_t cnt;
  u64_stats_t nsecs;
  u64_stats_t misses;
} __attribute__((preserve_access_index));

struct bpf_prog {
  struct bpf_prog_aux* aux;
  struct bpf_prog_stats* stats;  // one for each processor
} __attribute__((preserve_access_index));

struct bpf_array {
  void* pptrs[1];  // a flexible array in the kernel
} __attribute__((preserve_access_index));

// Nothing is ever written there: it is for its addresses.
struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, __u64);
} offsets SEC(".maps");

// What is a pointer to the verifier when it is stored is a number when it is
// loaded again. One reader at a time: the loader.
static const volatile void* volatile number;

#define WORD(words, offset) (*(const __u64*)((const char*)(words) + (offset)))

struct sum {
  // Of variables that each processor has one of, before its offset is added.
  unsigned long stats, known;
  struct bpfgrant_program_statistics* into;
};

// A processor's offset is taken from a map's element, whose two addresses can
// be had. bpf_per_cpu_ptr() does not take `stats`, and what it takes, a
// variable of the kernel's, it finds only where all symbols are kept
// (CONFIG_KALLSYMS_ALL).
static long add_processor(__u32 processor, struct sum* sum) {
  __u32 zero = 0;
  const void* here = bpf_map_lookup_percpu_elem(&offsets, &zero, processor);

  if (!here) return 1;
  number = here;
  const unsigned long stats = sum->stats + ((unsigned long)number - sum->known);
  // All of it by one call, which is most of what this costs.
  __u64 words[4] = {};
  if (bpf_probe_read_kernel(words, sizeof(words), (const void*)stats)) return 0;
  sum->into->runs +=
      WORD(words, bpf_core_field_offset(struct bpf_prog_stats, cnt));
  sum->into->run_ns +=
      WORD(words, bpf_core_field_offset(struct bpf_prog_stats, nsecs));
  sum->into->misses +=
      WORD(words, bpf_core_field_offset(struct bpf_prog_stats, misses));
  return 0;
}

// The kernel calls once more, without an object, at the end.
SEC("iter/bpf_prog")
int statistics_programs(struct bpf_iter__bpf_prog* context) {
  struct bpf_prog* program = context->prog;
  struct bpfgrant_program_statistics record = {};
  struct sum sum = {.into = &record};

  if (!program) return 0;
  record.id = program->aux->id;
  bpf_core_read(&sum.stats, sizeof(sum.stats), &program->stats);
  number = &offsets;
  bpf_probe_read_kernel(
      &sum.known, sizeof(sum.known),
      (const char*)number + bpf_core_field_offset(struct bpf_array, pptrs));
  if (sum.stats && sum.known) {
    bpf_loop(BPFGRANT_MOST_PROCESSORS, add_processor, &sum, 0);
  }
  bpf_seq_write(context->meta->seq, &record, sizeof(record));
  return 0;
}

SEC("iter/bpf_map")
int statistics_ring_buffers(struct bpf_iter__bpf_map* context) {
  struct bpf_map* map = context->map;
  struct bpfgrant_ring_buffer_statistics record = {};
  struct bpf_ringbuf* ring = 0;

  if (!map) return 0;
  record.id = map->id;
  record.type = map->map_type;
  if (record.type != BPF_MAP_TYPE_RINGBUF &&
      record.type != BPF_MAP_TYPE_USER_RINGBUF) {
    return 0;
  }
  bpf_core_read(&ring, sizeof(ring), &((struct bpf_ringbuf_map*)map)->rb);
  bpf_core_read(&record.mask, sizeof(record.mask), &ring->mask);
  // The consumer first: what it has not read by now can only be more.
  bpf_core_read(&record.consumer, sizeof(record.consumer), &ring->consumer_pos);
  bpf_core_read(&record.producer, sizeof(record.producer), &ring->producer_pos);
  bpf_seq_write(context->meta->seq, &record, sizeof(record));
  return 0;
}

char LICENSE[] SEC("license") = "GPL";
