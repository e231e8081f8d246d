// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// What the tests of parameters see of the program `chosen`.

#ifndef TESTS_PRIVILEGED_PARAMETERS_CHOSEN_H_
#define TESTS_PRIVILEGED_PARAMETERS_CHOSEN_H_

#include <bpfgrant/parameter.h>
#include <linux/types.h>

#define CHOSEN_BYTES 8

struct chosen_bytes {
  struct bpfgrant_bytes head;
  __u8 bytes[CHOSEN_BYTES];
};

// The one entry of `settings`, which the program has for itself.
struct chosen_settings {
  __u64 number;
  struct chosen_bytes tag;
  struct bpfgrant_prefix network;
  __u32 mode;
};

// The one entry of `seen`: what the last packet met.
struct chosen_seen {
  __u64 packets;
  __s64 level;
  __u32 color;
  struct chosen_bytes name;
  struct bpfgrant_prefix source;
  struct chosen_settings settings;
};

#endif  // TESTS_PRIVILEGED_PARAMETERS_CHOSEN_H_
