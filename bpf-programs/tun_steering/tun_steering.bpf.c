// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// Chooses the queue of a tun or tap device for each packet that goes to whoever
// has the device open, by the Toeplitz hash of its addresses and ports:
// receive-side scaling as virtio specifies it. README.md says what for, and what
// its holder can do.

#include "tun_steering.h"

#include <bpf/bpf_endian.h>
#include <bpfgrant/gate.bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <stddef.h>

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __uint(map_flags, BPF_F_MMAPABLE);
  __type(key, __u32);
  __type(value, struct tun_steering_config);
} config SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __uint(map_flags, BPF_F_MMAPABLE);
  __type(key, __u32);
  __type(value, struct tun_steering_key);
} key SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, TUN_STEERING_TABLE);
  __uint(map_flags, BPF_F_MMAPABLE);
  __type(key, __u32);
  __type(value, __u16);
} indirection SEC(".maps");

// What is hashed: addresses, then ports, in network byte order.
struct flow {
  __u32 used; /* bytes, at most */
  __u8 bytes[TUN_STEERING_KEY - 4];
};

// The first four bytes of an extension header that begins so.
struct extension {
  __u8 next;
  __u8 length; /* in units of 8 bytes, without the first */
};
#define EXTENSIONS 8

// Each field of the maps is the holder's to change while this runs: it is read
// once.
#define READ_ONCE(field) (*(const volatile typeof(field)*)&(field))

static __always_inline bool load(struct __sk_buff* skb, __u32 offset, void* to,
                                 __u32 bytes) {
  return bpf_skb_load_bytes_relative(skb, offset, to, bytes,
                                     BPF_HDR_START_NET) == 0;
}

static __always_inline __u32 toeplitz(const struct flow* flow,
                                      const struct tun_steering_key* with) {
  __u32 window = READ_ONCE(with->first);
  __u32 hash = 0;
  int byte, bit;

  for (byte = 0; byte < TUN_STEERING_KEY - 4; byte++) {
    if ((__u32)byte >= flow->used) break;
    __u32 input = flow->bytes[byte];
    __u32 next = READ_ONCE(with->rest[byte]);

    for (bit = 7; bit >= 0; bit--) {
      /* Without a branch, which the verifier would have to follow. */
      hash ^= window & -(input >> bit & 1);
      window = window << 1 | (next >> bit & 1);
    }
  }
  return hash;
}

// Adds the ports, if `protocol` has such and the types ask for them.
static __always_inline bool add_ports(struct __sk_buff* skb, struct flow* flow,
                                      __u32 types, __u8 protocol, __u32 tcp,
                                      __u32 udp, __u32 from, __u32 at) {
  if (!(protocol == IPPROTO_TCP && (types & tcp)) &&
      !(protocol == IPPROTO_UDP && (types & udp)))
    return false;
  return load(skb, from, &flow->bytes[at], 4);
}

static __always_inline bool ipv4(struct __sk_buff* skb, __u32 types,
                                 struct flow* flow) {
  struct iphdr header;

  if (!load(skb, 0, &header, sizeof(header))) return false;
  __builtin_memcpy(flow->bytes, &header.saddr, 8);
  flow->used = 12;
  /* A fragment, but for the first one, has no ports; none of them is asked. */
  if (!(bpf_ntohs(header.frag_off) & 0x3fff) &&
      add_ports(skb, flow, types, header.protocol, TUN_STEERING_TCPV4,
                TUN_STEERING_UDPV4, header.ihl * 4, 8))
    return true;
  return types & TUN_STEERING_IPV4;
}

// Where the header behind the extensions begins; 0 if it cannot be seen.
static __always_inline __u32 behind_extensions(struct __sk_buff* skb,
                                               __u8* protocol) {
  __u32 at = sizeof(struct ipv6hdr);
  struct extension extension;
  int i;

  for (i = 0; i < EXTENSIONS; i++) {
    if (*protocol != IPPROTO_HOPOPTS && *protocol != IPPROTO_ROUTING &&
        *protocol != IPPROTO_DSTOPTS)
      return at;
    if (!load(skb, at, &extension, sizeof(extension))) return 0;
    *protocol = extension.next;
    at += (extension.length + 1) * 8;
  }
  return 0;
}

static __always_inline bool ipv6(struct __sk_buff* skb, __u32 types,
                                 struct flow* flow) {
  struct ipv6hdr header;
  __u8 protocol;
  __u32 at;

  if (!load(skb, 0, &header, sizeof(header))) return false;
  __builtin_memcpy(flow->bytes, &header.saddr, 32);
  flow->used = 36;
  protocol = header.nexthdr;
  at = behind_extensions(skb, &protocol);
  if (at && add_ports(skb, flow, types, protocol, TUN_STEERING_TCPV6,
                      TUN_STEERING_UDPV6, at, 32))
    return true;
  return types & TUN_STEERING_IPV6;
}

// Back to spreading flows by the hash that the kernel has given the packet, if
// any; tun takes it modulo the queues. Nothing can be dropped here.
static __always_inline int revoked(struct __sk_buff* skb) {
  return bpfgrant_on_revoke == BPFGRANT_ON_REVOKE_PASS ? (int)skb->hash : 0;
}

SEC("socket")
int tun_steering(struct __sk_buff* skb) {
  if (!bpfgrant_gate_open()) return revoked(skb);

  __u32 zero = 0;
  const volatile struct tun_steering_config* wanted =
      bpf_map_lookup_elem(&config, &zero);
  const struct tun_steering_key* with = bpf_map_lookup_elem(&key, &zero);
  if (!wanted || !with) return 0;

  struct flow flow = {};
  __u32 types = wanted->hash_types;
  __u16 type = bpf_ntohs((__u16)skb->protocol);
  __u32 length = wanted->table_length;
  if (!wanted->redirect || !length ||
      !((type == ETH_P_IP && ipv4(skb, types, &flow)) ||
        (type == ETH_P_IPV6 && ipv6(skb, types, &flow))))
    return wanted->default_queue;

  __u32 place = toeplitz(&flow, with) % length;
  const __u16* queue = bpf_map_lookup_elem(&indirection, &place);
  return queue ? READ_ONCE(*queue) : wanted->default_queue;
}

// See ../LICENSE for why this says GPL.
char LICENSE[] SEC("license") = "GPL";
