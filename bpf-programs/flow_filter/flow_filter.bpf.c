// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// Lets pass or drops a socket's packets by the prefix that they come from, as
// its holder says through a user ring buffer. README.md says what for, and what
// its holder can do.
//
// Commands are obeyed where packets are judged: each run first drains what the
// holder has submitted, so a rule is in force for the next packet. The kernel
// lets one run at a time drain a ring buffer, so `rules` has one writer.

#include "flow_filter.h"

#include <bpf/bpf_endian.h>
#include <bpfgrant/gate.bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <stddef.h>

#define ENOENT 2
#define EBUSY 16

// The family in front: a rule for 0.0.0.0/0 is none for ::/0.
struct prefix {
  __u32 bits; /* FAMILY_BITS and those of the address */
  __u8 family;
  __u8 address[16];
  __u8 reserved[3];
};
#define FAMILY_BITS 8

struct verdict {
  __u64 expires_ns; /* 0: never */
  __u32 bits;       /* of its prefix */
  __u32 slot;       /* of `rules` */
  __u32 list;
  __u32 tag;
};

struct rule {
  struct prefix prefix; /* with no bits: a free slot */
  __u32 tag;
  __u64 expires_ns;
};

struct {
  __uint(type, BPF_MAP_TYPE_USER_RINGBUF);
  __uint(max_entries, 256 * 1024);
} commands SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, 256 * 1024);
} events SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_LPM_TRIE);
  /* One more than there are rules: before Linux 6.13 a full trie does not take
     an update of what it holds. */
  __uint(max_entries, FLOW_FILTER_RULES + 1);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct prefix);
  __type(value, struct verdict);
} verdicts SEC(".maps");

// What is in `verdicts`, which a program cannot walk.
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, FLOW_FILTER_RULES);
  __type(key, __u32);
  __type(value, struct rule);
} rules SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __uint(map_flags, BPF_F_MMAPABLE);
  __type(key, __u32);
  __type(value, struct flow_filter_config);
} config SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct flow_filter_counters);
} counters SEC(".maps");

// Ring buffers name no value type, and a type that no map or global names is
// not in the object's BTF. Constants, for .rodata exists anyway.
const struct flow_filter_command* const flow_filter_sample = 0;
const struct flow_filter_event* const flow_filter_record = 0;
const enum flow_filter_verb* const flow_filter_verbs = 0;
const enum flow_filter_list* const flow_filter_lists = 0;
const enum flow_filter_kind* const flow_filter_kinds = 0;
const enum flow_filter_why* const flow_filter_whys = 0;

// A run's.
struct run {
  struct flow_filter_counters* count;
  __u64 now_ns;
  __u32 report;
  __u32 obeyed;
};

// Where a search of `rules` begins: behind what the last one found.
static __u32 hand;

static __always_inline void tell(const struct run* run, __u8 kind, __u8 why,
                                 __u32 tag, const struct prefix* about) {
  struct flow_filter_event* event;

  if (!(run->report & (1U << kind))) return;
  event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
  if (!event) {
    __sync_fetch_and_add(&run->count->lost, 1);
    return;
  }
  event->at_ns = run->now_ns;
  event->tag = tag;
  event->kind = kind;
  event->why = why;
  event->family = about->family;
  event->prefix_length =
      about->bits > FAMILY_BITS ? about->bits - FAMILY_BITS : 0;
  __builtin_memcpy(event->address, about->address, sizeof(event->address));
  bpf_ringbuf_submit(event, 0);
}

static __always_inline bool expired(__u64 expires_ns, __u64 now_ns) {
  return expires_ns && now_ns >= expires_ns;
}

// --- Commands ----------------------------------------------------------------

// The rule of just this prefix.
static __always_inline struct verdict* find_exactly(
    const struct prefix* prefix) {
  struct verdict* found = bpf_map_lookup_elem(&verdicts, prefix);

  return found && found->bits == prefix->bits ? found : NULL;
}

// False: the kernel could not just now.
static __always_inline bool forget(const struct prefix* prefix) {
  long error = bpf_map_delete_elem(&verdicts, prefix);

  return !error || error == -ENOENT;
}

struct search {
  __u64 now_ns;
  __u32 from;
  __u32 slot; /* FLOW_FILTER_RULES: not found */
};

static long look_for_room(__u32 i, struct search* search) {
  __u32 slot = (search->from + i) % FLOW_FILTER_RULES;
  const struct rule* rule = bpf_map_lookup_elem(&rules, &slot);

  if (!rule) return 1;
  if (rule->prefix.bits && !expired(rule->expires_ns, search->now_ns)) return 0;
  search->slot = slot;
  return 1;
}

// A slot that nobody needs; what has expired there goes. FLOW_FILTER_RULES:
// there is none.
#define NOT_NOW (~0U)
static __always_inline __u32 make_room(const struct run* run) {
  struct search search = {
      .now_ns = run->now_ns, .from = hand, .slot = FLOW_FILTER_RULES};
  struct prefix prefix;
  struct rule* rule;

  bpf_loop(FLOW_FILTER_RULES, look_for_room, &search, 0);
  rule = bpf_map_lookup_elem(&rules, &search.slot);
  if (!rule) return FLOW_FILTER_RULES;
  hand = search.slot + 1;
  if (rule->prefix.bits) {
    prefix = rule->prefix;
    if (!forget(&prefix)) return NOT_NOW;
    tell(run, FLOW_FILTER_EXPIRED, FLOW_FILTER_FINE, rule->tag, &prefix);
    rule->prefix.bits = 0;
  }
  return search.slot;
}

static __noinline enum flow_filter_why add(
    const struct run* run, const struct flow_filter_command* command,
    const struct prefix* prefix) {
  const struct verdict* old = find_exactly(prefix);
  struct verdict verdict = {
      .bits = prefix->bits, .list = command->list, .tag = command->tag};
  struct rule* rule;

  if (command->list != FLOW_FILTER_ALLOW && command->list != FLOW_FILTER_BLOCK)
    return FLOW_FILTER_BAD_LIST;
  if (command->lifetime_ns) {
    verdict.expires_ns = run->now_ns + command->lifetime_ns;
    // So long that it never ends.
    if (verdict.expires_ns < run->now_ns) verdict.expires_ns = 0;
  }
  verdict.slot = old ? old->slot : make_room(run);
  rule = bpf_map_lookup_elem(&rules, &verdict.slot);
  if (!rule)
    return verdict.slot == NOT_NOW ? FLOW_FILTER_NO_MEMORY : FLOW_FILTER_FULL;
  if (bpf_map_update_elem(&verdicts, prefix, &verdict, BPF_ANY) != 0)
    return FLOW_FILTER_NO_MEMORY;
  rule->prefix = *prefix;
  rule->expires_ns = verdict.expires_ns;
  rule->tag = verdict.tag;
  return FLOW_FILTER_FINE;
}

static __always_inline enum flow_filter_why remove(
    const struct prefix* prefix) {
  const struct verdict* old = find_exactly(prefix);
  struct rule* rule;
  __u32 slot;

  if (!old) return FLOW_FILTER_NO_RULE;
  slot = old->slot;
  if (!forget(prefix)) return FLOW_FILTER_NO_MEMORY;
  rule = bpf_map_lookup_elem(&rules, &slot);
  if (rule) rule->prefix.bits = 0;
  return FLOW_FILTER_FINE;
}

struct clearing {
  __u32 left; /* there is a rule that the kernel could not delete; no count:
                 the verifier would follow each number */
};

static long clear_slot(__u32 slot, struct clearing* clearing) {
  struct rule* rule = bpf_map_lookup_elem(&rules, &slot);
  struct prefix prefix;

  if (!rule) return 1;
  if (!rule->prefix.bits) return 0;
  prefix = rule->prefix;
  if (forget(&prefix))
    rule->prefix.bits = 0;
  else
    clearing->left = 1;
  return 0;
}

static __always_inline enum flow_filter_why clear(void) {
  struct clearing clearing = {};

  bpf_loop(FLOW_FILTER_RULES, clear_slot, &clearing, 0);
  return clearing.left ? FLOW_FILTER_NO_MEMORY : FLOW_FILTER_FINE;
}

static __always_inline enum flow_filter_why obey(
    const struct run* run, const struct flow_filter_command* command,
    struct prefix* prefix) {
  if (command->verb == FLOW_FILTER_CLEAR) return clear();
  if (command->verb != FLOW_FILTER_ADD && command->verb != FLOW_FILTER_REMOVE)
    return FLOW_FILTER_BAD_VERB;
  if (!(command->family == 4 && command->prefix_length <= 32) &&
      !(command->family == 6 && command->prefix_length <= 128))
    return FLOW_FILTER_BAD_PREFIX;
  prefix->bits = FAMILY_BITS + command->prefix_length;
  return command->verb == FLOW_FILTER_ADD ? add(run, command, prefix)
                                          : remove(prefix);
}

// The sample is the holder's to change while this runs: it is copied once, and
// only the copy is looked at.
static long take_command(struct bpf_dynptr* sample, struct run* run) {
  struct flow_filter_command command = {};
  struct prefix prefix = {};
  enum flow_filter_why why = FLOW_FILTER_TOO_SHORT;

  if (bpf_dynptr_read(&command, sizeof(command), sample, 0, 0) == 0) {
    prefix.family = command.family;
    __builtin_memcpy(prefix.address, command.address, sizeof(prefix.address));
    why = obey(run, &command, &prefix);
  }
  if (why == FLOW_FILTER_FINE)
    __sync_fetch_and_add(&run->count->obeyed, 1);
  else
    __sync_fetch_and_add(&run->count->refused, 1);
  tell(run, why == FLOW_FILTER_FINE ? FLOW_FILTER_OBEYED : FLOW_FILTER_REFUSED,
       why, command.tag, &prefix);
  // A packet must not pay for all that a flood of commands costs.
  return ++run->obeyed >= FLOW_FILTER_BATCH;
}

static __always_inline void take_commands(struct run* run) {
  long drained = bpf_user_ringbuf_drain(&commands, take_command, run, 0);

  if (drained >= 0) return;
  if (drained == -EBUSY) {
    __sync_fetch_and_add(&run->count->busy, 1);
    return;
  }
  __sync_fetch_and_add(&run->count->broken, 1);
  run->count->error = drained;
}

// --- Packets -----------------------------------------------------------------

// A header that cannot be seen leaves no address, which no rule matches.
static __always_inline void load_address(struct __sk_buff* skb,
                                         struct prefix* source, __u8 family,
                                         __u32 offset, __u32 bytes) {
  source->family = family;
  if (bpf_skb_load_bytes_relative(skb, offset, source->address, bytes,
                                  BPF_HDR_START_NET) == 0)
    source->bits = FAMILY_BITS + 8 * bytes;
}

// False: the packet is of neither protocol.
static __always_inline bool load_source(struct __sk_buff* skb,
                                        struct prefix* source) {
  if (skb->protocol == bpf_htons(ETH_P_IP))
    load_address(skb, source, 4, offsetof(struct iphdr, saddr), 4);
  else if (skb->protocol == bpf_htons(ETH_P_IPV6))
    load_address(skb, source, 6, offsetof(struct ipv6hdr, saddr), 16);
  else
    return false;
  return true;
}

// Lengths of a prefix: rules that have expired may lie in front of one that has
// not.
#define LENGTHS 129

// The rule of the longest prefix; false if there is none.
static __always_inline bool judge(const struct run* run,
                                  const struct prefix* source, __u32* list,
                                  __u32* tag) {
  struct prefix within = *source;
  const struct verdict* verdict;
  int i;

  for (i = 0; i < LENGTHS; i++) {
    verdict = bpf_map_lookup_elem(&verdicts, &within);
    if (!verdict) return false;
    *list = verdict->list;
    *tag = verdict->tag;
    if (!expired(verdict->expires_ns, run->now_ns)) return true;
    within.bits = verdict->bits - 1;
    if (within.bits < FAMILY_BITS) return false;
  }
  return false;
}

SEC("socket")
int flow_filter(struct __sk_buff* skb) {
  if (!bpfgrant_gate_open()) return bpfgrant_revoked_socket_filter(skb);

  __u32 zero = 0;
  const volatile struct flow_filter_config* wanted =
      bpf_map_lookup_elem(&config, &zero);
  struct flow_filter_counters* count = bpf_map_lookup_elem(&counters, &zero);
  if (!wanted || !count) return 0;

  struct run run = {.count = count,
                    .now_ns = bpf_ktime_get_ns(),
                    .report = wanted->report};
  take_commands(&run);

  struct prefix source = {};
  __u32 list = FLOW_FILTER_ALLOW, tag = 0;
  if (!load_source(skb, &source)) {
    __sync_fetch_and_add(&count->other, 1);
    return BPFGRANT_KEEP_ALL;
  }
  if (!source.bits || !judge(&run, &source, &list, &tag)) {
    __sync_fetch_and_add(&count->unmatched, 1);
    if (!wanted->drop_unmatched) return BPFGRANT_KEEP_ALL;
    tag = 0;
  } else if (list == FLOW_FILTER_ALLOW) {
    __sync_fetch_and_add(&count->allowed, 1);
    return BPFGRANT_KEEP_ALL;
  } else {
    __sync_fetch_and_add(&count->blocked, 1);
  }
  tell(&run, FLOW_FILTER_BLOCKED, FLOW_FILTER_FINE, tag, &source);
  return 0;
}

// See ../LICENSE for why this says GPL.
char LICENSE[] SEC("license") = "GPL";
