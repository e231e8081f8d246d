// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// What the holder of a packet_sampler finds in its maps: interface
// packet_sampler/1. No structure has a hole, so none carries bytes that nobody
// wrote.

#ifndef BPFGRANT_PACKET_SAMPLER_H_
#define BPFGRANT_PACKET_SAMPLER_H_

#include <linux/types.h>

#define PACKET_SAMPLER_MAX_BYTES 64

// One record of the ring buffer `samples`.
struct packet_sample {
  __u64 at_ns;     // CLOCK_MONOTONIC
  __u32 length;    // of the packet as the filter sees it, in bytes
  __u32 protocol;  // ethertype in host byte order; 0 on Unix sockets
  __u16 captured;  // how many of `bytes` are the packet's; the rest are 0
  __u16 reserved[3];
  __u8 bytes[PACKET_SAMPLER_MAX_BYTES];
};

// The one entry of `config`. It may be rewritten at any moment; each packet
// goes by what it finds.
struct packet_sampler_config {
  // Bytes to copy of each packet; 0 and above the parameter `most_bytes`: that.
  __u32 snap_length;
  // Sample one packet in so many, at random; at least the parameter
  // `least_one_in`.
  __u32 one_in;
};

// The one entry of `counters`, since the instance was loaded.
struct packet_sampler_counters {
  __u64 seen;     // packets
  __u64 sampled;  // records written
  __u64 dropped;  // picked, but the ring buffer was full
};

#endif  // BPFGRANT_PACKET_SAMPLER_H_
