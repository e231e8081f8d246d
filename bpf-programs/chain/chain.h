/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What a process and the loop `chain` share: interface chain/1. README.md has
 * the language as a table. For BPF, C and C++. No structure has a hole.
 */
#ifndef BPFGRANT_CHAIN_H_
#define BPFGRANT_CHAIN_H_

#include <linux/types.h>

#define CHAIN_TEMPLATES 16
#define CHAIN_RULES 4
#define CHAIN_LANES 64 /* a power of two, and what the ring has room for */
#define CHAIN_ITEMS 4096
#define CHAIN_FIELDS 4
#define CHAIN_WORDS 64 /* of each lane; struct statx needs 32 */
#define CHAIN_DEFAULT_REQUESTS (1U << 20)
/* Completions of nobody's request that a run puts up with. */
#define CHAIN_STRANGERS (1U << 16)

/* What a request is made of besides its opcode and flags. */
enum chain_part {
  CHAIN_FD,
  CHAIN_ADDRESS,
  CHAIN_LENGTH,
  CHAIN_OFFSET,
  CHAIN_FILE, /* sqe->file_index: 1 + a slot of the registered files */
  CHAIN_PARTS,
};

/* Where an operand takes something from. `index` is of what stands behind. */
enum chain_source {
  CHAIN_NOTHING, /* the operand is `value` */
  CHAIN_RESULT,  /* a template: its last result for this item; 0: none yet */
  CHAIN_SUM,     /* a template: the sum of its positive results for this item */
  CHAIN_FIELD,   /* the item's fields */
  CHAIN_WORD,    /* the lane's words in the memory, at this moment */
  CHAIN_ITEM,    /* the item's number; index 0 */
  CHAIN_LANE,    /* the lane's number; index 0 */
  CHAIN_SOURCES,
};

/* value + scale * source, in 64 bits, cut to the size of the request's part. */
struct chain_operand {
  __u64 value;
  __s32 scale;
  __u8 source; /* enum chain_source */
  __u8 index;
  __u16 reserved;
};

/* What happens then. A result that no rule holds for: NEXT, and FAILED if it is
   negative: then the item ends. */
enum chain_then {
  CHAIN_NO_RULE, /* the list of rules ends before it */
  CHAIN_NEXT,    /* the next template; behind the last one the item ends */
  CHAIN_GO_TO,   /* template `target`; behind the last one the item ends */
  CHAIN_REST,    /* what is left of this transfer, or NEXT if nothing is */
  CHAIN_END,     /* the item ends */
  CHAIN_THENS,
};

/* Which transfers the rule is for. */
enum chain_when {
  CHAIN_ANY,
  CHAIN_SHORT, /* something moved, and something is left */
  CHAIN_FULL,  /* something moved, and nothing is left */
  CHAIN_WHENS,
};

/* And besides; bits. */
enum chain_mark {
  CHAIN_FAILED = 1, /* the item has failed, with this result */
  CHAIN_LAST = 2,   /* no further item is begun */
};

/* Holds for results from `low` to `high`. The first rule that holds counts. */
struct chain_rule {
  __s32 low;
  __s32 high;
  __u8 then; /* enum chain_then */
  __u8 target;
  __u8 when; /* enum chain_when */
  __u8 mark; /* enum chain_mark */
};

struct chain_template {
  __u8 opcode;    /* enum io_uring_op */
  __u8 sqe_flags; /* IOSQE_FIXED_FILE, or 0 */
  __u16 buffer;   /* of READ_FIXED and WRITE_FIXED: a registered buffer */
  __u32 op_flags; /* rw_flags, open_flags, msg_flags, ...: the opcode's */
  struct chain_operand parts[CHAIN_PARTS]; /* by enum chain_part */
  struct chain_rule rules[CHAIN_RULES];
};

struct chain_item {
  __u64 fields[CHAIN_FIELDS];
};

enum chain_ending {
  CHAIN_ITEM_PENDING,
  CHAIN_ITEM_DONE,
  CHAIN_ITEM_FAILED,   /* by a rule, or a negative result without one */
  CHAIN_ITEM_REQUESTS, /* it needed more than `item_requests` */
  CHAIN_ITEM_PATIENCE, /* more jumps back without progress than `patience` */
  CHAIN_ITEM_SPENT,    /* the chain's `requests` were spent */
};

struct chain_result {
  __s32 result;   /* the last one; of a failed item, the one that failed */
  __u8 ending;    /* enum chain_ending */
  __u8 from;      /* the template that `result` is of */
  __u16 reserved; /* 0 */
  __u64 bytes;    /* moved by transfers: the sum of their positive results */
};

/* Written by the process before it runs the loop, and read once at the start
   but for `quit`. */
struct chain_program {
  __u32 templates;     /* 1 to CHAIN_TEMPLATES */
  __u32 first;         /* the first item */
  __u32 items;         /* how many, from there */
  __u32 lanes;         /* items worked on at once: 1 to CHAIN_LANES */
  __u32 item_requests; /* that one item may need; 0: CHAIN_DEFAULT_REQUESTS */
  __u32 requests;      /* that all may need; 0: CHAIN_DEFAULT_REQUESTS */
  __u32 patience;      /* of one item: jumps back after a result that is not
                          positive */
  __u32 quit;          /* at any time: not 0: begin no further item */
};

/* Why a program was not run, and which template, part or rule is to blame. The
   last two are of a program that ran. */
enum chain_reason {
  CHAIN_FINE,
  CHAIN_BAD_TEMPLATES, /* program.templates */
  CHAIN_BAD_ITEMS,     /* program.first + program.items */
  CHAIN_BAD_LANES,     /* program.lanes */
  CHAIN_BAD_OPCODE,    /* template; not among the manifest's */
  CHAIN_BAD_SQE_FLAGS, /* template */
  CHAIN_BAD_BUFFER,    /* template; not 0, and the opcode takes none */
  CHAIN_MULTISHOT,     /* template; would complete more than once */
  CHAIN_BAD_SOURCE,    /* template, part */
  CHAIN_BAD_INDEX,     /* template, part; no such template, field or word */
  CHAIN_BAD_SCALE,     /* template, part; 0 with a source, or not without */
  CHAIN_BAD_RESERVED,  /* template, part */
  CHAIN_BAD_RANGE,     /* template, rule; low > high */
  CHAIN_BAD_THEN,      /* template, rule */
  CHAIN_BAD_TARGET,    /* template, rule; beyond the end, or without GO_TO */
  CHAIN_BAD_WHEN,      /* template, rule */
  CHAIN_BAD_MARK,      /* template, rule */
  CHAIN_NO_TRANSFER,   /* template, rule; SHORT, FULL or REST, of an opcode that
                          moves no bytes from or to one buffer */
  CHAIN_SPENT,         /* program.requests were not enough */
  CHAIN_STRANGE,       /* the ring was full of completions that were not its
                          own */
  CHAIN_REASONS,
};

/* Written by the loop; whole when it has stopped by itself. */
struct chain_outcome {
  __u32 reason;      /* enum chain_reason */
  __u32 in_template; /* what `reason` is about */
  __u32 in_part;     /* part, or rule */
  __u32 next;        /* the first item that was not begun */
  __u32 done;        /* items */
  __u32 failed;      /* items, of whatever ending but DONE */
  __u64 requests;
  __u64 bytes;
};

struct chain_memory {
  struct chain_program program;
  struct chain_outcome outcome;
  struct chain_template templates[CHAIN_TEMPLATES];
  struct chain_item items[CHAIN_ITEMS];
  struct chain_result results[CHAIN_ITEMS]; /* by item */
  __u64 words[CHAIN_LANES][CHAIN_WORDS];
};

#endif /* BPFGRANT_CHAIN_H_ */
