/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the loop `chain` keeps where the process cannot reach it: the program as
 * it was when it was checked, and where each lane stands.
 */
#ifndef BPFGRANT_CHAIN_STATE_H_
#define BPFGRANT_CHAIN_STATE_H_

#include <bpfgrant/loop.h>

#include "chain.h"

/* What a template's results are needed for; bits. Most requests need little,
   and each word in memory costs more than the decision. */
enum chain_use {
  CHAIN_USE_RESULT = 1,   /* an operand names its result */
  CHAIN_USE_SUM = 2,      /* an operand names the sum of its results */
  CHAIN_USE_TRANSFER = 4, /* it moves bytes from or to one buffer */
  CHAIN_USE_LEFT = 8,     /* a rule asks what is left of the transfer */
  CHAIN_USE_REST = 16,    /* a rule asks for the rest of it */
};

/* A template, checked, with the request that it makes as far as that is
   constant. */
struct chain_step {
  struct io_uring_sqe sqe;
  struct chain_template text;
  __u32 dynamic; /* bits by enum chain_part: operands with a source */
  __u32 uses;    /* enum chain_use */
};

/* One item at a time, and one request of it. */
struct chain_lane {
  __u64 expects; /* user_data of the request under way, or CHAIN_IDLE */
  __u32 ticket;  /* of its last request, ever */
  __u32 item;
  __u32 at;       /* the template under way */
  __u32 requests; /* that the item may still make */
  __u32 patience; /* and jumps back without progress */
  __u32 seen;     /* bits: templates that have a result for this item */
  __u32 rest;     /* the request is what was left of the last one */
  __u32 ending;   /* enum chain_ending */
  __s32 result;   /* that failed, unless `ending` is PENDING */
  __u32 from;     /* and the template that it is of */
  __u64 bytes;
  /* The transfer under way. */
  __u64 address;
  __u64 offset;
  __u32 left;
  __s32 results[CHAIN_TEMPLATES];
  __u64 sums[CHAIN_TEMPLATES];
};

/* Of no request: of one that only wakes the loop. */
#define CHAIN_IDLE BPFGRANT_WAKE

struct chain_state {
  __u32 running;
  __u32 templates;
  __u32 wide;  /* lanes that the program wants */
  __u32 begun; /* lanes that have begun their first item */
  __u32 busy;  /* lanes */
  __u32 end;   /* behind the last item */
  __u32 last;  /* no further item */
  __u32 item_requests;
  __u32 patience;
  __u32 limit;     /* requests that the run may make */
  __u32 requests;  /* of these, those left */
  __u32 strangers; /* completions of no request of the run */
  struct chain_outcome outcome;
  struct chain_step steps[CHAIN_TEMPLATES];
  struct chain_lane lanes[CHAIN_LANES];
};

#endif /* BPFGRANT_CHAIN_STATE_H_ */
