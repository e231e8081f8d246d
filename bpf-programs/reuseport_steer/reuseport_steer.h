// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// What the holder of a reuseport_steer finds in its maps: interface
// reuseport_steer/1. No structure has a hole, so none carries bytes that nobody
// wrote.

#ifndef BPFGRANT_REUSEPORT_STEER_H_
#define BPFGRANT_REUSEPORT_STEER_H_

#include <linux/types.h>

#define REUSEPORT_STEER_MAX_BYTES 20  // the longest connection id of QUIC v1
#define REUSEPORT_STEER_MAX_SOCKETS 64

// The one entry of `config`. It may be rewritten at any moment; each packet
// goes by what it finds. With a field out of its range, as with all of them 0,
// every packet is left to the kernel's own choice.
struct reuseport_steer_config {
  // Where the connection id begins, in bytes from the start of the UDP payload.
  __u32 offset;
  // Where it begins in packets whose first bit is set: QUIC's long headers. 0:
  // at `offset`, too.
  __u32 long_offset;
  __u32 length;   // of the id: 1 to 20 bytes
  __u32 sockets;  // entries of `sockets` to choose among, from 0 on: 1 to 64
  __u32 seed;  // of the hash: unknown to the peers, it keeps them from aiming
  __u32 reserved;
};

// The one entry of `counters`, in packets since the instance was loaded.
struct reuseport_steer_counters {
  __u64 seen;
  __u64 steered;       // to the socket that the id says
  __u64 unconfigured;  // left to the kernel: `config` does not say how
  __u64 unsuitable;    // left to the kernel: not UDP, or too short for an id
  __u64 no_socket;     // left to the kernel: slot empty, or not of this group
};

#endif  // BPFGRANT_REUSEPORT_STEER_H_
