/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Takes a program over from the memory that the process can rewrite: each word
 * is read once, into the loop's own state, and checked there.
 */
#ifndef BPFGRANT_CHAIN_CHECK_H_
#define BPFGRANT_CHAIN_CHECK_H_

#include "chain_state.h"

#define CHAIN_BIT(opcode) (1ULL << (opcode))
/* IORING_OP_FTRUNCATE, which older headers do not have. */
#define CHAIN_OP_FTRUNCATE 55
#define CHAIN_TIMEOUT_MULTISHOT (1U << 6)

/* From or to one buffer, so that there can be a rest of them. */
#define CHAIN_TRANSFERS                                                 \
  (CHAIN_BIT(IORING_OP_READ) | CHAIN_BIT(IORING_OP_WRITE) |             \
   CHAIN_BIT(IORING_OP_READ_FIXED) | CHAIN_BIT(IORING_OP_WRITE_FIXED) | \
   CHAIN_BIT(IORING_OP_RECV) | CHAIN_BIT(IORING_OP_SEND))

/* The manifest's list. */
#define CHAIN_OPCODES                                                        \
  (CHAIN_TRANSFERS | CHAIN_BIT(IORING_OP_NOP) | CHAIN_BIT(IORING_OP_READV) | \
   CHAIN_BIT(IORING_OP_WRITEV) | CHAIN_BIT(IORING_OP_FSYNC) |                \
   CHAIN_BIT(IORING_OP_POLL_ADD) | CHAIN_BIT(IORING_OP_SYNC_FILE_RANGE) |    \
   CHAIN_BIT(IORING_OP_TIMEOUT) | CHAIN_BIT(IORING_OP_ACCEPT) |              \
   CHAIN_BIT(IORING_OP_FALLOCATE) | CHAIN_BIT(IORING_OP_OPENAT) |            \
   CHAIN_BIT(IORING_OP_CLOSE) | CHAIN_BIT(IORING_OP_STATX) |                 \
   CHAIN_BIT(IORING_OP_FADVISE) | CHAIN_BIT(IORING_OP_OPENAT2) |             \
   CHAIN_BIT(IORING_OP_SPLICE) | CHAIN_BIT(IORING_OP_TEE) |                  \
   CHAIN_BIT(IORING_OP_SHUTDOWN) | CHAIN_BIT(IORING_OP_RENAMEAT) |           \
   CHAIN_BIT(IORING_OP_UNLINKAT) | CHAIN_BIT(IORING_OP_MKDIRAT) |            \
   CHAIN_BIT(IORING_OP_SYMLINKAT) | CHAIN_BIT(IORING_OP_LINKAT) |            \
   CHAIN_BIT(CHAIN_OP_FTRUNCATE))

static __always_inline __u32 chain_refuse(struct chain_state* state,
                                          __u32 reason, __u32 in_template,
                                          __u32 in_part) {
  state->outcome.reason = reason;
  state->outcome.in_template = in_template;
  state->outcome.in_part = in_part;
  return reason;
}

static __always_inline __u32
chain_check_opcode(const struct chain_template* text) {
  __u64 bit = text->opcode < 64 ? CHAIN_BIT(text->opcode) : 0;
  const struct chain_operand* length = &text->parts[CHAIN_LENGTH];

  if (!(bit & CHAIN_OPCODES)) return CHAIN_BAD_OPCODE;
  if (text->sqe_flags & ~IOSQE_FIXED_FILE) return CHAIN_BAD_SQE_FLAGS;
  if (text->buffer && text->opcode != IORING_OP_READ_FIXED &&
      text->opcode != IORING_OP_WRITE_FIXED)
    return CHAIN_BAD_BUFFER;
  /* A lane has one request under way and one completion to come. The length of
     a poll is its flags; the ioprio, where others have the bit, is always 0. */
  if (text->opcode == IORING_OP_POLL_ADD && (length->value || length->source))
    return CHAIN_MULTISHOT;
  if (text->opcode == IORING_OP_TIMEOUT &&
      (text->op_flags & CHAIN_TIMEOUT_MULTISHOT))
    return CHAIN_MULTISHOT;
  return CHAIN_FINE;
}

static __always_inline __u32 chain_check_operand(
    const struct chain_state* state, const struct chain_operand* operand) {
  __u32 limit = 1;

  if (operand->source >= CHAIN_SOURCES) return CHAIN_BAD_SOURCE;
  if (operand->source == CHAIN_RESULT || operand->source == CHAIN_SUM)
    limit = state->templates;
  if (operand->source == CHAIN_FIELD) limit = CHAIN_FIELDS;
  if (operand->source == CHAIN_WORD) limit = CHAIN_WORDS;
  if (operand->index >= limit) return CHAIN_BAD_INDEX;
  if ((operand->source == CHAIN_NOTHING) != (operand->scale == 0))
    return CHAIN_BAD_SCALE;
  if (operand->reserved) return CHAIN_BAD_RESERVED;
  return CHAIN_FINE;
}

static __always_inline __u32 chain_check_rule(const struct chain_state* state,
                                              const struct chain_step* step,
                                              const struct chain_rule* rule) {
  if (rule->then >= CHAIN_THENS) return CHAIN_BAD_THEN;
  if (rule->low > rule->high) return CHAIN_BAD_RANGE;
  if (rule->target > (rule->then == CHAIN_GO_TO ? state->templates : 0))
    return CHAIN_BAD_TARGET;
  if (rule->when >= CHAIN_WHENS) return CHAIN_BAD_WHEN;
  if (rule->mark & ~(CHAIN_FAILED | CHAIN_LAST)) return CHAIN_BAD_MARK;
  if (!(step->uses & CHAIN_USE_TRANSFER) &&
      (rule->when != CHAIN_ANY || rule->then == CHAIN_REST))
    return CHAIN_NO_TRANSFER;
  return CHAIN_FINE;
}

/* The request as far as it is constant. */
static __always_inline void chain_prepare(struct chain_step* step) {
  const struct chain_template* text = &step->text;
  struct io_uring_sqe* sqe = &step->sqe;

  io_uring_prep_rw(text->opcode, sqe, (int)text->parts[CHAIN_FD].value,
                   (const void*)(unsigned long)text->parts[CHAIN_ADDRESS].value,
                   (unsigned)text->parts[CHAIN_LENGTH].value,
                   text->parts[CHAIN_OFFSET].value);
  sqe->flags = text->sqe_flags;
  sqe->rw_flags = text->op_flags;
  sqe->buf_index = text->buffer;
  sqe->file_index = (unsigned)text->parts[CHAIN_FILE].value;
}

/* Word by word, since a compiler may read what it copies twice. */
static __always_inline void chain_copy(struct chain_template* to,
                                       const struct chain_template* from) {
  __u64* words = (__u64*)to;
  const __u64* shared = (const __u64*)from;
  unsigned i;

#pragma GCC unroll 32
  for (i = 0; i < sizeof(*to) / sizeof(__u64); i++)
    words[i] = bpfgrant_read_once(shared[i]);
}

static __always_inline __u32 chain_take_over(struct chain_state* state,
                                             const struct chain_memory* memory,
                                             __u32 number) {
  struct chain_step* step = &state->steps[number % CHAIN_TEMPLATES];
  __u32 reason;
  int i;

  chain_copy(&step->text, &memory->templates[number % CHAIN_TEMPLATES]);
  reason = chain_check_opcode(&step->text);
  if (reason) return chain_refuse(state, reason, number, 0);
  if (CHAIN_TRANSFERS >> step->text.opcode & 1)
    step->uses |= CHAIN_USE_TRANSFER;
  step->dynamic = 0;
  bpfgrant_for(i, 0, CHAIN_PARTS) {
    const struct chain_operand* part =
        &step->text.parts[(__u32)i % CHAIN_PARTS];

    reason = chain_check_operand(state, part);
    if (reason) return chain_refuse(state, reason, number, i);
    if (!part->source) continue;
    step->dynamic |= 1U << (i & 7);
    if (part->source == CHAIN_RESULT)
      state->steps[part->index % CHAIN_TEMPLATES].uses |= CHAIN_USE_RESULT;
    if (part->source == CHAIN_SUM)
      state->steps[part->index % CHAIN_TEMPLATES].uses |= CHAIN_USE_SUM;
  }
  bpfgrant_for(i, 0, CHAIN_RULES) {
    const struct chain_rule* rule = &step->text.rules[i % CHAIN_RULES];

    if (rule->then == CHAIN_NO_RULE) break;
    reason = chain_check_rule(state, step, rule);
    if (reason) return chain_refuse(state, reason, number, i);
    if (rule->when != CHAIN_ANY) step->uses |= CHAIN_USE_LEFT;
    if (rule->then == CHAIN_REST) step->uses |= CHAIN_USE_LEFT | CHAIN_USE_REST;
  }
  chain_prepare(step);
  return CHAIN_FINE;
}

/* Of the program in the memory, a run; or why not. */
static __always_inline __u32 chain_begin(struct chain_state* state,
                                         const struct chain_memory* memory) {
  const struct chain_program* program = &memory->program;
  __u32 first = bpfgrant_read_once(program->first);
  __u32 items = bpfgrant_read_once(program->items);
  __u32 reason;
  int i;

  __builtin_memset(&state->outcome, 0, sizeof(state->outcome));
  state->templates = bpfgrant_read_once(program->templates);
  state->wide = bpfgrant_read_once(program->lanes);
  state->item_requests = bpfgrant_read_once(program->item_requests);
  state->limit = bpfgrant_read_once(program->requests);
  state->patience = bpfgrant_read_once(program->patience);
  state->outcome.next = first;
  state->end = first + items;
  state->begun = state->busy = state->last = state->strangers = 0;
  if (!state->item_requests) state->item_requests = CHAIN_DEFAULT_REQUESTS;
  if (!state->limit) state->limit = CHAIN_DEFAULT_REQUESTS;
  state->requests = state->limit;
  if (state->templates == 0 || state->templates > CHAIN_TEMPLATES)
    return chain_refuse(state, CHAIN_BAD_TEMPLATES, 0, 0);
  if (first > CHAIN_ITEMS || items > CHAIN_ITEMS - first)
    return chain_refuse(state, CHAIN_BAD_ITEMS, 0, 0);
  if (state->wide == 0 || state->wide > CHAIN_LANES)
    return chain_refuse(state, CHAIN_BAD_LANES, 0, 0);
  bpfgrant_for(i, 0, CHAIN_TEMPLATES) state->steps[i % CHAIN_TEMPLATES].uses =
      0;
  bpfgrant_for(i, 0, (int)state->templates) {
    reason = chain_take_over(state, memory, i);
    if (reason) return reason;
  }
  /* Nobody works on an item yet; an earlier run may have left some at it. */
  bpfgrant_for(i, 0, CHAIN_LANES) state->lanes[i % CHAIN_LANES].expects =
      CHAIN_IDLE;
  state->running = 1;
  return CHAIN_FINE;
}

#endif /* BPFGRANT_CHAIN_CHECK_H_ */
