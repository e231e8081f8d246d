// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// A socket filter that depends on the layout of a kernel structure: loading it
// takes the kernel's BTF, which is what makes a load slow.

// libbpf's headers need the kernel's types, which the gate's header brings.
// clang-format off
#include <bpfgrant/gate.bpf.h>
#include <bpf/bpf_core_read.h>
// clang-format on

struct task_struct {
  int pid;
} __attribute__((preserve_access_index));

struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, 64 * 1024);
} samples SEC(".maps");

SEC("socket")
int kernel_btf(struct __sk_buff* skb) {
  if (!bpfgrant_gate_open()) return bpfgrant_revoked_socket_filter(skb);
  __u64 offset = bpf_core_field_offset(struct task_struct, pid);
  bpf_ringbuf_output(&samples, &offset, sizeof(offset), 0);
  return skb->len;
}

char LICENSE[] SEC("license") = "GPL";
