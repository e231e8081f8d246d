// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// Drains a user ring buffer as its client says: without the limits that a
// program of the catalog would have.

#include "drainer.h"

#include <bpfgrant/gate.bpf.h>

struct {
  __uint(type, BPF_MAP_TYPE_USER_RINGBUF);
  __uint(max_entries, DRAINER_BYTES);
} input SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __uint(map_flags, BPF_F_MMAPABLE);
  __type(key, __u32);
  __type(value, struct drainer_page);
} page SEC(".maps");

struct run {
  struct drainer_page* page;
  __u32 spin;
  __u32 left; /* 0: no end */
};

static long nothing(__u32 i, void* unused) { return 0; }

static long take(struct bpf_dynptr* sample, struct run* run) {
  __u64 first = 0, again = 0;

  run->page->samples += 1;
  if (bpf_dynptr_read(&first, sizeof(first), sample, 0, 0) == 0) {
    run->page->bytes += sizeof(first);
    if (run->spin) bpf_loop(run->spin, nothing, NULL, 0);
    bpf_dynptr_read(&again, sizeof(again), sample, 0, 0);
    if (again != first) run->page->torn += 1;
    run->page->first = first;
  } else if (run->spin) {
    bpf_loop(run->spin, nothing, NULL, 0);
  }
  if (!run->left) return 0;
  run->left -= 1;
  return !run->left;
}

SEC("socket")
int drainer(struct __sk_buff* skb) {
  __u32 zero = 0;
  struct drainer_page* mine;
  struct run run = {};
  __u64 flags;
  long drained;

  if (!bpfgrant_gate_open()) return bpfgrant_revoked_socket_filter(skb);
  mine = bpf_map_lookup_elem(&page, &zero);
  if (!mine) return BPFGRANT_KEEP_ALL;
  run.page = mine;
  run.spin = *(volatile __u32*)&mine->spin;
  run.left = *(volatile __u32*)&mine->stop_after;
  flags = *(volatile __u64*)&mine->flags;
  drained = bpf_user_ringbuf_drain(&input, take, &run, flags);
  __sync_fetch_and_add(&mine->runs, 1);
  if (drained == -16) /* EBUSY */
    __sync_fetch_and_add(&mine->busy, 1);
  else
    mine->last = drained;
  return BPFGRANT_KEEP_ALL;
}

char LICENSE[] SEC("license") = "GPL";
