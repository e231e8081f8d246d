// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// Programs that ask the kernel's types: for what all kernels have, for what
// none has, and for what none has after a look.

// The first brings the types of the second.
// clang-format off
#include <bpfgrant/gate.bpf.h>
#include <bpf/bpf_core_read.h>
// clang-format on

#pragma clang attribute push(__attribute__((preserve_access_index)), \
                             apply_to = record)
struct list_head {
  struct list_head *next, *prev;
};
struct task_struct {
  int pid;
  struct list_head tasks;
  char comm[16];
};
// In an unnamed union of an unnamed structure, there.
struct sk_buff {
  union {
    struct list_head list;
  };
};
struct task_struct___changed {
  struct list_head pid;
};
struct task_struct___invented {
  int never_heard_of;
};
struct never_heard_of {
  int anything;
};
#pragma clang attribute pop

enum bpf_map_type___some { BPF_MAP_TYPE_RINGBUF___x = 1 };
enum bpf_map_type___invented { BPF_MAP_TYPE_NEVER_HEARD_OF = 1 };

#define PROGRAM(name)                             \
  static __always_inline int name##_of(void);     \
  SEC("socket")                                   \
  int name(struct __sk_buff* skb) {               \
    if (!bpfgrant_gate_open()) {                  \
      return bpfgrant_revoked_socket_filter(skb); \
    }                                             \
    return name##_of();                           \
  }                                               \
  static __always_inline int name##_of(void)

PROGRAM(has_all) {
  return bpf_core_field_offset(struct task_struct, pid) +
         bpf_core_field_offset(struct task_struct, tasks.next) +
         bpf_core_field_offset(struct task_struct, comm[3]) +
         bpf_core_field_offset(struct sk_buff, list) +
         bpf_core_type_size(struct list_head) +
         bpf_core_enum_value(enum bpf_map_type___some,
                             BPF_MAP_TYPE_RINGBUF___x);
}

PROGRAM(lacks_field) {
  return bpf_core_field_offset(struct task_struct___invented, never_heard_of);
}

PROGRAM(lacks_type) { return bpf_core_type_size(struct never_heard_of); }

PROGRAM(lacks_value) {
  return bpf_core_enum_value(enum bpf_map_type___invented,
                             BPF_MAP_TYPE_NEVER_HEARD_OF);
}

PROGRAM(takes_it_for_another) {
  return bpf_core_field_offset(struct task_struct___changed, pid);
}

PROGRAM(asks_first) {
  if (!bpf_core_field_exists(struct task_struct___invented, never_heard_of)) {
    return 1;
  }
  return bpf_core_field_offset(struct task_struct___invented, never_heard_of);
}

PROGRAM(calls_what_is_not) { return ((int (*)(void))100000)(); }

#ifdef WRONG_PROTOTYPE
extern int bpf_dynptr_is_null(int one) __ksym;
PROGRAM(calls_it_wrongly) { return bpf_dynptr_is_null(1); }
#endif

char LICENSE[] SEC("license") = "GPL";
