// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// Which BPF maps and programs exist: the ids of all of them, ascending, as the
// kernel's iterators come by. An object whose last reference is gone is not
// among them, even while the kernel still frees it.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "iterators.bpf.h"

struct bpf_map {
  __u32 id;
} __attribute__((preserve_access_index));

struct bpf_prog_aux {
  __u32 id;
} __attribute__((preserve_access_index));

struct bpf_prog {
  struct bpf_prog_aux* aux;
} __attribute__((preserve_access_index));

// The kernel calls once more, without an object, at the end.
SEC("iter/bpf_map")
int census_maps(struct bpf_iter__bpf_map* context) {
  struct bpf_map* map = context->map;
  __u32 id;

  if (!map) return 0;
  id = map->id;
  bpf_seq_write(context->meta->seq, &id, sizeof(id));
  return 0;
}

SEC("iter/bpf_prog")
int census_programs(struct bpf_iter__bpf_prog* context) {
  struct bpf_prog* program = context->prog;
  __u32 id;

  if (!program) return 0;
  id = program->aux->id;
  bpf_seq_write(context->meta->seq, &id, sizeof(id));
  return 0;
}

char LICENSE[] SEC("license") = "GPL";
