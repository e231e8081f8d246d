/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
//
// What the kernel's iterators over maps and programs give to the programs that
// they run: each says for itself what it reads of struct bpf_map and bpf_prog.

#ifndef BPFGRANT_ITERATORS_BPF_H_
#define BPFGRANT_ITERATORS_BPF_H_

struct seq_file;
struct bpf_map;
struct bpf_prog;

struct bpf_iter_meta {
  struct seq_file* seq;
} __attribute__((preserve_access_index));

struct bpf_iter__bpf_map {
  struct bpf_iter_meta* meta;
  struct bpf_map* map;
} __attribute__((preserve_access_index));

struct bpf_iter__bpf_prog {
  struct bpf_iter_meta* meta;
  struct bpf_prog* prog;
} __attribute__((preserve_access_index));

#endif  // BPFGRANT_ITERATORS_BPF_H_
