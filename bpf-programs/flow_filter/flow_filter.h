// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// What the holder of a flow_filter finds in its maps: interface flow_filter/1.
// No structure has a hole, so none carries bytes that nobody wrote.

#ifndef BPFGRANT_FLOW_FILTER_H_
#define BPFGRANT_FLOW_FILTER_H_

#include <linux/types.h>

#define FLOW_FILTER_RULES 4096
// Commands that one packet, or one run, obeys at most.
#define FLOW_FILTER_BATCH 64

enum flow_filter_verb {
  FLOW_FILTER_ADD = 1,     // or replaces the rule of the same prefix
  FLOW_FILTER_REMOVE = 2,  // the rule of just this prefix
  FLOW_FILTER_CLEAR = 3,   // all rules
};

enum flow_filter_list {
  FLOW_FILTER_ALLOW = 1,
  FLOW_FILTER_BLOCK = 2,
};

// One sample of the user ring buffer `commands`.
struct flow_filter_command {
  __u8 verb;           // enum flow_filter_verb
  __u8 list;           // enum flow_filter_list; of ADD
  __u8 family;         // 4 or 6; not of CLEAR
  __u8 prefix_length;  // bits: at most 32 or 128
  __u32 tag;           // comes back in events
  __u64 lifetime_ns;   // of ADD: from when it is obeyed; 0: for ever
  __u8 address[16];    // network byte order; of IPv4 the first 4
};

enum flow_filter_kind {
  FLOW_FILTER_OBEYED = 1,   // the command with this tag
  FLOW_FILTER_REFUSED = 2,  // the command with this tag; `why`
  FLOW_FILTER_EXPIRED = 3,  // the rule made way for another
  FLOW_FILTER_BLOCKED = 4,  // a packet, by the rule with this tag (0: by none)
};

enum flow_filter_why {
  FLOW_FILTER_FINE = 0,
  FLOW_FILTER_TOO_SHORT = 1,  // the sample is no command
  FLOW_FILTER_BAD_VERB = 2,
  FLOW_FILTER_BAD_LIST = 3,
  FLOW_FILTER_BAD_PREFIX = 4,  // family or prefix_length
  FLOW_FILTER_FULL = 5,        // FLOW_FILTER_RULES, and none has expired
  FLOW_FILTER_NO_RULE = 6,     // REMOVE: there is none of that prefix
  FLOW_FILTER_NO_MEMORY = 7,   // or the kernel was held up; try again
};

// One record of the ring buffer `events`.
struct flow_filter_event {
  __u64 at_ns;  // CLOCK_MONOTONIC
  __u32 tag;
  __u8 kind;  // enum flow_filter_kind
  __u8 why;   // enum flow_filter_why; of REFUSED
  __u8 family;
  __u8 prefix_length;  // of the rule; of BLOCKED: of the address, 32 or 128
  __u8 address[16];
};

// Bits of `report`.
#define FLOW_FILTER_REPORT_OBEYED (1U << FLOW_FILTER_OBEYED)
#define FLOW_FILTER_REPORT_REFUSED (1U << FLOW_FILTER_REFUSED)
#define FLOW_FILTER_REPORT_EXPIRED (1U << FLOW_FILTER_EXPIRED)
#define FLOW_FILTER_REPORT_BLOCKED (1U << FLOW_FILTER_BLOCKED)

// The one entry of `config`. It may be rewritten at any moment; each packet
// goes by what it finds.
struct flow_filter_config {
  __u32 drop_unmatched;  // 0: packets that no rule matches pass
  __u32 report;          // which events are written
};

// The one entry of `counters`, since the instance was loaded.
struct flow_filter_counters {
  __u64 allowed;    // packets that a rule let pass
  __u64 blocked;    // packets that a rule dropped
  __u64 unmatched;  // packets of IPv4 and IPv6 that no rule matched
  __u64 other;      // packets of anything else; they pass
  __u64 obeyed;     // commands
  __u64 refused;    // commands
  __u64 lost;       // events: the ring buffer was full
  __u64 busy;       // runs that found another one draining `commands`
  __u64 broken;     // runs that could not drain it: `error`
  __s64 error;      // the last one, as the kernel says it: -EINVAL, -E2BIG
};

#endif  // BPFGRANT_FLOW_FILTER_H_
