/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The request that a template makes, for an item on a lane.
 */
#ifndef BPFGRANT_CHAIN_REQUEST_H_
#define BPFGRANT_CHAIN_REQUEST_H_

#include "chain_state.h"

static __always_inline struct chain_lane* chain_lane_at(
    struct chain_state* state, __u32 number) {
  return &state->lanes[number % CHAIN_LANES];
}

static __always_inline __u64 chain_value(const struct chain_memory* memory,
                                         const struct chain_lane* lane,
                                         __u32 number,
                                         const struct chain_operand* operand) {
  __u32 index = operand->index;
  __u64 from = 0;

  switch (operand->source) {
    case CHAIN_RESULT:
      if (lane->seen >> (index % CHAIN_TEMPLATES) & 1)
        from = lane->results[index % CHAIN_TEMPLATES];
      break;
    case CHAIN_SUM:
      if (lane->seen >> (index % CHAIN_TEMPLATES) & 1)
        from = lane->sums[index % CHAIN_TEMPLATES];
      break;
    case CHAIN_FIELD:
      from = bpfgrant_read_once(
          memory->items[lane->item % CHAIN_ITEMS].fields[index % CHAIN_FIELDS]);
      break;
    case CHAIN_WORD:
      from = bpfgrant_read_once(
          memory->words[number % CHAIN_LANES][index % CHAIN_WORDS]);
      break;
    case CHAIN_ITEM:
      from = lane->item;
      break;
    case CHAIN_LANE:
      from = number;
      break;
  }
  return operand->value + (__u64)(__s64)operand->scale * from;
}

/* One part of the request under way. */
static __always_inline __u64 chain_part(const struct chain_memory* memory,
                                        const struct chain_lane* lane,
                                        __u32 number,
                                        const struct chain_step* step,
                                        enum chain_part part) {
  const struct chain_operand* operand = &step->text.parts[part];

  return step->dynamic & 1U << part ? chain_value(memory, lane, number, operand)
                                    : operand->value;
}

/* The words of a request that are not the same for all that its template makes.
 */
static __always_inline void chain_fill(const struct chain_memory* memory,
                                       struct chain_lane* lane, __u32 number,
                                       const struct chain_step* step,
                                       struct io_uring_sqe* sqe) {
  __u64 address = lane->address;
  __u64 offset = lane->offset;
  __u32 length = lane->left;

  if (!lane->rest) {
    address = chain_part(memory, lane, number, step, CHAIN_ADDRESS);
    length = chain_part(memory, lane, number, step, CHAIN_LENGTH);
    offset = chain_part(memory, lane, number, step, CHAIN_OFFSET);
    if (step->uses & CHAIN_USE_LEFT) lane->left = length;
    if (step->uses & CHAIN_USE_REST) {
      lane->address = address;
      lane->offset = offset;
    }
  }
  sqe->addr = address;
  sqe->len = length;
  sqe->off = offset;
  if (step->dynamic & 1U << CHAIN_FD)
    sqe->fd = chain_part(memory, lane, number, step, CHAIN_FD);
  if (step->dynamic & 1U << CHAIN_FILE)
    sqe->file_index = chain_part(memory, lane, number, step, CHAIN_FILE);
}

#endif /* BPFGRANT_CHAIN_REQUEST_H_ */
