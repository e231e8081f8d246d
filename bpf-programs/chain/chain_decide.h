/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What follows from a result.
 */
#ifndef BPFGRANT_CHAIN_DECIDE_H_
#define BPFGRANT_CHAIN_DECIDE_H_

#include "chain_state.h"

/* The first failure of an item is the one that counts. */
static __always_inline void chain_fail_item(struct chain_lane* lane,
                                            enum chain_ending ending,
                                            __s32 result) {
  if (lane->ending != CHAIN_ITEM_PENDING) return;
  lane->ending = ending;
  lane->result = result;
  lane->from = lane->at;
}

/* Something was moved: how much is left. A forged completion can claim any
   number. */
static __always_inline enum chain_when chain_move(struct chain_lane* lane,
                                                  const struct chain_step* step,
                                                  __u32 moved) {
  __u32 left = lane->left;

  moved = moved < left ? moved : left;
  lane->left = left - moved;
  if (step->uses & CHAIN_USE_REST) {
    lane->address += moved;
    /* Sockets have none, and -1 is the file's own. */
    if (lane->offset != ~0ULL && step->text.opcode != IORING_OP_SEND &&
        step->text.opcode != IORING_OP_RECV)
      lane->offset += moved;
  }
  return moved < left ? CHAIN_SHORT : CHAIN_FULL;
}

/* Writes the result down where it is needed. What kind of transfer it was. */
static __always_inline enum chain_when chain_note(struct chain_lane* lane,
                                                  const struct chain_step* step,
                                                  __s32 result) {
  __u32 at = lane->at % CHAIN_TEMPLATES;
  __u32 uses = step->uses;

  if (uses & (CHAIN_USE_RESULT | CHAIN_USE_SUM)) {
    if (!(lane->seen >> at & 1)) lane->sums[at] = 0;
    lane->seen |= 1U << at;
    lane->results[at] = result;
    if (result > 0) lane->sums[at] += result;
  }
  if (result <= 0 || !(uses & CHAIN_USE_TRANSFER)) return CHAIN_ANY;
  lane->bytes += result;
  return uses & CHAIN_USE_LEFT ? chain_move(lane, step, result) : CHAIN_ANY;
}

/* Whether this rule is the one: the first that holds, or the end of the list.
 */
static __always_inline bool chain_holds(const struct chain_rule* rule,
                                        __s32 result, enum chain_when when) {
  return rule->then == CHAIN_NO_RULE ||
         (result >= rule->low && result <= rule->high &&
          (rule->when == CHAIN_ANY || rule->when == when));
}

/* The template that comes next; state->templates when the item ends. */
static __always_inline __u32 chain_decide(struct chain_state* state,
                                          struct chain_lane* lane,
                                          const struct chain_step* step,
                                          __s32 result, enum chain_when when) {
  const struct chain_rule* rules = step->text.rules;
  const struct chain_rule* rule =
      chain_holds(&rules[0], result, when)   ? &rules[0]
      : chain_holds(&rules[1], result, when) ? &rules[1]
      : chain_holds(&rules[2], result, when) ? &rules[2]
      : chain_holds(&rules[3], result, when) ? &rules[3]
                                             : NULL;
  __u32 then = rule ? rule->then : CHAIN_NO_RULE;
  __u32 next = lane->at + 1;

  lane->rest = 0;
  if (then == CHAIN_NO_RULE) {
    if (result >= 0) return next;
    chain_fail_item(lane, CHAIN_ITEM_FAILED, result);
    return state->templates;
  }
  if (rule->mark & CHAIN_FAILED)
    chain_fail_item(lane, CHAIN_ITEM_FAILED, result);
  if (rule->mark & CHAIN_LAST) state->last = 1;
  if (then == CHAIN_END) return state->templates;
  if (then == CHAIN_GO_TO) next = rule->target;
  if (then == CHAIN_REST && lane->left) {
    lane->rest = 1;
    next = lane->at;
  }
  if (next <= lane->at && result <= 0 && lane->patience-- == 0) {
    chain_fail_item(lane, CHAIN_ITEM_PATIENCE, result);
    return state->templates;
  }
  return next;
}

#endif /* BPFGRANT_CHAIN_DECIDE_H_ */
