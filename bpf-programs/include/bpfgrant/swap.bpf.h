// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// Swappable maps: two of a kind, of which programs see one while the process
// fills or reads the other. Rotate of the client library turns them over, and
// returns when no run of the program can have the old one any more.
//
//   BPFGRANT_SWAPPABLE(counts, 0, {
//     __uint(type, BPF_MAP_TYPE_HASH);
//     __uint(max_entries, 1024);
//     __type(key, struct flow);
//     __type(value, __u64);
//   });
//
//   void* now = bpfgrant_now(counts);
//   if (!now) return ...;
//   value = bpf_map_lookup_elem(now, &flow);
//
// The number is the map's place among the manifest's swappable maps, from 0.
// Both maps are the loader's: the object must not put any there itself.
//
// Several that are turned over together are turned over at once, but a run can
// begin before that and go on after. Who needs them to match asks again:
//
//   __u64 swaps = bpfgrant_swaps();
//   keys = bpfgrant_now(keys); table = bpfgrant_now(table);
//   if (swaps != bpfgrant_swaps()) ... both once more
//
// Once more is enough: the next turn waits for this run's end.

#ifndef BPFGRANT_SWAP_BPF_H_
#define BPFGRANT_SWAP_BPF_H_

#ifdef BPFGRANT_LOOP_BPF_H_
// A loop, with loop.h in front of this: the entry has it.
#include <bpfgrant/gate.h>

extern const volatile struct bpfgrant_gate_entry* bpfgrant_gate_here(
    void) __hidden;
#else
#include <bpfgrant/gate_here.bpf.h>

static BPFGRANT_GATE_HERE
#endif

// The loader takes a program only if it reaches a swappable map's two by these
// instructions and those of bpfgrant_gate_here, each as a function of its own,
// and by no others (daemon/loader/swap.cc): else nobody could say which one it has. The
// parameters are for the types: clang leaves those out of the BTF that are named
// in an inner map alone.
#define BPFGRANT_SWAPPABLE(name, number, ...)                           \
  struct bpfgrant_swappable_##name __VA_ARGS__;                         \
  struct {                                                              \
    __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);                           \
    __uint(max_entries, 2);                                             \
    __type(key, __u32);                                                 \
    __array(values, struct bpfgrant_swappable_##name);                  \
  } name SEC(".maps");                                                  \
                                                                        \
  static __attribute__((noinline)) void* bpfgrant_now_##name(           \
      typeof(*((struct bpfgrant_swappable_##name*)0)->key)(*key)[1],    \
      typeof(*((struct bpfgrant_swappable_##name*)0)->value)(           \
          *value)[1]) {                                                 \
    register void* now asm("r0") = (void*)bpfgrant_gate_here();         \
    asm volatile(                                                       \
        "if r0 == 0 goto +9\n"                                          \
        "r1 = *(u64*)(r0 + 8)\n"                                        \
        "r1 >>= %[bit]\n"                                               \
        "r1 &= 1\n"                                                     \
        "*(u32*)(r10 - 4) = r1\n"                                       \
        "r2 = r10\n"                                                    \
        "r2 += -4\n"                                                    \
        "r1 = %[maps] ll\n"                                             \
        "call %[lookup]\n"                                              \
        : "+r"(now)                                                     \
        : [maps] "i"(&name), [bit] "i"(number),                         \
          [lookup] "i"(BPF_FUNC_map_lookup_elem)                        \
        : "r1", "r2", "r3", "r4", "r5", "memory");                      \
    return now;                                                         \
  }                                                                     \
  struct bpfgrant_swappable_##name

// The one of the two that runs see now; NULL only for the verifier.
#define bpfgrant_now(name) bpfgrant_now_##name(0, 0)

// Another value after each turn of any of them.
static __always_inline __u64 bpfgrant_swaps(void) {
  const volatile struct bpfgrant_gate_entry* gate = bpfgrant_gate_here();

  return gate ? gate->swaps : 0;
}

#endif  // BPFGRANT_SWAP_BPF_H_
