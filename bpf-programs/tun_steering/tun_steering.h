// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// What the holder of a tun_steering finds in its maps: interface
// tun_steering/1. The layouts, and the order of the maps in the manifest, are
// those that QEMU expects of the fds in its option ebpf-rss-fds.

#ifndef BPFGRANT_TUN_STEERING_H_
#define BPFGRANT_TUN_STEERING_H_

#include <linux/types.h>

// Entries of the array `indirection`, each a queue's number: __u16.
#define TUN_STEERING_TABLE 128
#define TUN_STEERING_KEY 40  // bytes

// Bits of `hash_types`, as virtio's (VIRTIO_NET_RSS_HASH_TYPE_*). Those of
// extension headers are taken and change nothing.
#define TUN_STEERING_IPV4 (1U << 0)
#define TUN_STEERING_TCPV4 (1U << 1)
#define TUN_STEERING_UDPV4 (1U << 2)
#define TUN_STEERING_IPV6 (1U << 3)
#define TUN_STEERING_TCPV6 (1U << 4)
#define TUN_STEERING_UDPV6 (1U << 5)

// The one entry of `config`. All of it, the key and the table may be rewritten
// at any moment; each packet goes by what it finds.
struct tun_steering_config {
  __u8 redirect;       // 0: all packets go to `default_queue`
  __u8 populate_hash;  // taken, and without effect: tun has no place for it
  __u32 hash_types;
  __u16 table_length;   // entries in use: 1 to TUN_STEERING_TABLE
  __u16 default_queue;  // of packets that no bit of hash_types is for
} __attribute__((packed));

// The one entry of `key`.
struct tun_steering_key {
  __u32 first;                        // bytes 0 to 3, as a number
  __u8 rest[TUN_STEERING_KEY - 4];  // bytes 4 to 39
};

#endif  // BPFGRANT_TUN_STEERING_H_
