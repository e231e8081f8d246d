// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// For programs that are attached once for the whole machine. The daemon enrolls
// the process of each grant; a program begins with asking whose turn it is:
//
//   const struct bpfgrant_enrolled* grant = bpfgrant_enrolled();
//   if (!grant) return 0;
//
// and from there on touches that grant's maps only, each at grant->gate_slot of
// an array of maps (BPFGRANT_OF_EACH_GRANT).
//
// The contract with the loader:
//   - What a grant is to a program lies in the storage of the task that leads
//     the process. The loader puts it there by the pidfd that the kernel gave
//     for the client's connection, so there is no number that another process
//     could come to have: it is not inherited by fork(2), it is all the
//     process's threads', the kernel's own for it included (SQPOLL, workers),
//     and it goes with the task, or with execve(2).
//   - It says which gate is the grant's. Closed, the process is nobody again,
//     whether or not its storage has been cleared by then.
//
// Nothing here needs more than Linux 5.12.

#ifndef BPFGRANT_ENROLLED_BPF_H_
#define BPFGRANT_ENROLLED_BPF_H_

#include <bpfgrant/enrolled.h>
#include <bpfgrant/gate.bpf.h>

// What is needed of the kernel's; the loader finds the place in the running
// one.
struct bpf_local_storage {};
struct task_struct {
  struct task_struct* group_leader;
  struct bpf_local_storage* bpf_storage;
} __attribute__((preserve_access_index));

struct {
  __uint(type, BPF_MAP_TYPE_TASK_STORAGE);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, int);
  __type(value, struct bpfgrant_enrolled);
} bpfgrant_enrolled_tasks SEC(".maps");

// Declares the maps `name`, one for each grant, like the `structure` given.
#define BPFGRANT_OF_EACH_GRANT(structure, name) \
  struct {                                      \
    __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);   \
    __uint(max_entries, BPFGRANT_GATE_SLOTS);   \
    __type(key, __u32);                         \
    __array(values, structure);                 \
  } name SEC(".maps")

// The grant of the process that this runs for; null if it has none.
static __always_inline const struct bpfgrant_enrolled* bpfgrant_enrolled(void) {
  struct task_struct* task = bpf_get_current_task_btf();
  struct task_struct* leader = task->group_leader;
  const struct bpfgrant_enrolled* grant;

  // Of most processes there is nothing stored at all: spare them the call.
  if (!leader->bpf_storage) return (void*)0;
  grant = bpf_task_storage_get(&bpfgrant_enrolled_tasks, leader, (void*)0, 0);
  if (!grant || !bpfgrant_gate_open_at(grant->gate_slot, grant->gate_nonce))
    return (void*)0;
  return grant;
}

// A process that executes another program is nobody from then on: that program
// may be allowed more than the one that asked. The loader attaches this one
// with the others.
SEC("tp_btf/sched_process_exec")
int bpfgrant_executed(void* context) {
  bpf_task_storage_delete(&bpfgrant_enrolled_tasks, bpf_get_current_task_btf());
  return 0;
}

#endif  // BPFGRANT_ENROLLED_BPF_H_
