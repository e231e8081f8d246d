// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// How values of parameters are stored that are no numbers, in constants and in
// maps.

#ifndef BPFGRANT_PARAMETER_H_
#define BPFGRANT_PARAMETER_H_

#include <linux/types.h>

// The head of a byte string; its bytes follow, as many as `max_length` says,
// the rest of which are 0.
struct bpfgrant_bytes {
  __u32 length;
};

// All zeros without a value.
struct bpfgrant_prefix {
  __u32 family;      // 4 or 6
  __u32 length;      // bits that count; all others of `address` are 0
  __u8 address[16];  // network byte order; of IPv4 the first 4
};

#endif  // BPFGRANT_PARAMETER_H_
