// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// The entry of every io_uring loop. The loader links it in front of the
// author's object, which defines `bpfgrant_step`; nothing else is ever attached
// to a ring. What must hold for each step, whoever wrote the loop, is here: the
// gate, the task, the step budget.

#include <bpfgrant/loop_kernel.bpf.h>
#include <bpfgrant/gate_here.bpf.h>
#include <bpfgrant/loop_status.h>
#include <bpfgrant/loop_trace.h>

// libbpf's linker, before 1.5, cannot link two objects that declare the same
// kernel function (it asks for the function's size). What follows the three
// underscores is no part of the name (libbpf 1.3). For the same reason nothing
// here uses bpf_for.
extern int bpf_io_uring_submit_sqes___entry(struct io_ring_ctx* ring,
                                            __u32 count) __ksym;
extern __u8* bpf_io_uring_get_region___entry(struct io_ring_ctx* ring,
                                             __u32 region,
                                             const __u64 size) __ksym;

// The author's function: 0 to go on, an enum bpfgrant_stop to stop, -errno to
// stop with BPFGRANT_STOP_ERROR.
extern int bpfgrant_step(struct io_ring_ctx* ring,
                         struct iou_loop_params* params) __hidden;

// From the manifest. The budget stands with the gate, since the author must not
// be able to tell one value of it from another.
const volatile __u32 bpfgrant_step_budget BPFGRANT_GATE_CONSTANT = 0;
// Always 1, but in the tests that show why.
const volatile __u32 bpfgrant_task_check BPFGRANT_GATE_CONSTANT = 1;
// Whether its steps are counted: it has swappable maps.
const volatile __u32 bpfgrant_count_steps BPFGRANT_GATE_CONSTANT = 0;
const volatile __u32 bpfgrant_sq_entries SEC(".rodata.ring") = 0;
const volatile __u32 bpfgrant_cq_entries SEC(".rodata.ring") = 0;

// One for each instance; the client maps it.
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __uint(map_flags, BPF_F_MMAPABLE);
  __type(key, __u32);
  __type(value, struct bpfgrant_loop_status);
} bpfgrant_status SEC(".maps");

// One for the whole daemon, put in place by the loader like the gate.
struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, BPFGRANT_TRACE_BYTES);
} bpfgrant_trace SEC(".maps");

// Likewise.
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, BPFGRANT_GATE_SLOTS);
  __uint(map_flags, BPF_F_MMAPABLE);
  __type(key, __u32);
  __type(value, struct bpfgrant_steps);
} bpfgrant_steps SEC(".maps");

// In a section of its own: an object that adds to it is refused, and no pointer
// of the author's leads here. "used", or clang would split it into variables
// whose types no longer fit their sizes.
static struct {
  __u64 step;      // since the instance was attached
  __u32 in_a_row;  // steps since the last stop
  __u32 wait_for;  // POLLING: what the author wants to wait for
  __u32 traced;    // index of the next completion to record
  __u32 polling;   // looking once more before it stops with IDLE
  __s32 taken;     // what the last submission came to
  __u32 begun;     // bpfgrant_steps.begun, of the last one counted
} own __attribute__((used)) SEC(".data.bpfgrant");

struct task_struct {
  void* io_uring;
} __attribute__((preserve_access_index));

static __always_inline int stop(struct bpfgrant_loop_status* status, __u32 why,
                                __s32 detail) {
  own.in_a_row = 0;
  own.polling = 0;
  status->detail = detail;
  status->stop = why;
  return BPFGRANT_KERNEL_STOP;
}

// For swap.bpf.h: an author's object cannot name the entry's maps (libbpf 1.4's
// linker leaves such a name where it is not).
__hidden BPFGRANT_GATE_HERE

static __always_inline bool traced(void) {
  const volatile struct bpfgrant_gate_entry* gate = bpfgrant_gate_here();

  return gate && (gate->nonce & BPFGRANT_GATE_TRACED);
}

static __always_inline void record(struct bpfgrant_trace_record* event) {
  event->nonce = bpfgrant_gate_nonce;
  event->step = own.step;
  event->at_ns = bpf_ktime_get_ns();
  bpf_ringbuf_output(&bpfgrant_trace, event, sizeof(*event), 0);
}

static __noinline void record_completions(struct bpfgrant_rings* rings) {
  struct bpfgrant_trace_record event = {.kind = BPFGRANT_TRACE_COMPLETION};
  __u32 head = rings->cq_head;
  __u32 i;

  if ((__s32)(own.traced - head) < 0) own.traced = head;
  for (i = 0; i < BPFGRANT_TRACE_MAX; i++) {
    __u32 at = own.traced;
    __u32 index = at & (bpfgrant_cq_entries - 1);

    if (at == rings->cq_tail || index >= bpfgrant_cq_entries) break;
    event.user_data = rings->cqes[index].user_data;
    event.result = rings->cqes[index].res;
    event.flags = rings->cqes[index].flags;
    record(&event);
    own.traced = at + 1;
  }
}

static __noinline void record_requests(struct io_ring_ctx* ring, __u32 count) {
  struct bpfgrant_trace_record event = {.kind = BPFGRANT_TRACE_REQUEST};
  const struct io_uring_sqe* sqes;
  __u32 i;

  sqes = (void*)bpf_io_uring_get_region___entry(
      ring, BPFGRANT_REGION_SQ, bpfgrant_sq_entries * sizeof(*sqes));
  if (!sqes) return;
  for (i = 0; i < BPFGRANT_TRACE_MAX; i++) {
    if (i >= count || i >= bpfgrant_sq_entries) break;
    event.user_data = sqes[i].user_data;
    event.flags = sqes[i].flags;
    event.opcode = sqes[i].opcode;
    event.fd = sqes[i].fd;
    event.length = sqes[i].len;
    event.offset = sqes[i].off;
    record(&event);
  }
}

static __noinline void record_decision(int answer, __u32 why, __u32 wait_for) {
  struct bpfgrant_trace_record event = {.kind = BPFGRANT_TRACE_DECISION};

  event.result = answer;
  event.stop = why;
  event.wait_for = wait_for;
  record(&event);
}

// How the header's io_uring_submit gets to the kernel: counted, and traced.
__hidden int bpfgrant_submit(struct io_ring_ctx* ring, __u32 count) {
  struct bpfgrant_loop_status* status;
  __u32 zero = 0;
  int taken;

  if (traced()) record_requests(ring, count);
  taken = bpf_io_uring_submit_sqes___entry(ring, count);
  status = bpf_map_lookup_elem(&bpfgrant_status, &zero);
  if (status && taken > 0) status->requests += taken;
  own.taken = taken;
  return taken;
}

// Whether the completion at the head is the process's way of saying "come
// back"; it is taken then.
static __always_inline bool woken(struct bpfgrant_rings* rings, __s32* detail) {
  __u32 head = rings->cq_head;
  __u32 index = head & (bpfgrant_cq_entries - 1);

  if (head == rings->cq_tail || index >= bpfgrant_cq_entries ||
      rings->cqes[index].user_data != BPFGRANT_WAKE)
    return false;
  *detail = rings->cqes[index].res;
  rings->cq_head = head + 1;
  return true;
}

// What an author's answer means.
static __always_inline __u32 reason(int answer, __s32* detail) {
  *detail = answer == BPFGRANT_STOP_SUBMIT ? own.taken : 0;
  if (answer >= 0) return answer;
  *detail = answer;
  return BPFGRANT_STOP_ERROR;
}

// The author's step. Whoever turned maps over before `begun` changed sees that
// it did; else the step sees them turned over: the addition is a full barrier,
// as one whose result is used is (Documentation/bpf, "Atomic operations").
static __always_inline int counted_step(struct io_ring_ctx* ring,
                                        struct iou_loop_params* params) {
  __u32 slot = bpfgrant_gate_slot;
  struct bpfgrant_steps* steps;
  int answer;

  if (!bpfgrant_count_steps) return bpfgrant_step(ring, params);
  steps = bpf_map_lookup_elem(&bpfgrant_steps, &slot);
  if (!steps) return BPFGRANT_STOP_GEOMETRY;
  own.begun = __sync_fetch_and_add(&steps->begun, 1);
  answer = bpfgrant_step(ring, params);
  __sync_fetch_and_add(&steps->ended, 1);
  return answer;
}

static __always_inline int step(struct io_ring_ctx* ring,
                                struct iou_loop_params* params,
                                struct bpfgrant_loop_status* status,
                                struct bpfgrant_rings* rings) {
  bool tracing = traced();
  __u32 head = rings->cq_head;
  __s32 detail;
  __u32 why;
  int answer;

  if (tracing) record_completions(rings);
  answer = counted_step(ring, params);
  status->steps += 1;
  status->completions += rings->cq_head - head;
  why = reason(answer, &detail);
  if (tracing)
    record_decision(answer, why, params->cq_wait_idx - rings->cq_tail);
  own.step += 1;
  if (why != BPFGRANT_STOP_NONE) return stop(status, why, detail);
  // Behind the completions that the author took; a loop that waits for several
  // more would not be called for this one.
  if (woken(rings, &detail)) return stop(status, BPFGRANT_STOP_WOKEN, detail);
  if ((status->control & BPFGRANT_NO_WAIT) &&
      (__s32)(params->cq_wait_idx - rings->cq_tail) > 0) {
    // Completions may wait to be posted, which the kernel does between steps.
    own.wait_for = params->cq_wait_idx;
    own.polling = 1;
    params->cq_wait_idx = rings->cq_tail;
  }
  return BPFGRANT_KERNEL_CONTINUE;
}

SEC("struct_ops.s/loop_step")
int BPF_PROG(bpfgrant_loop, struct io_ring_ctx* ring,
             struct iou_loop_params* params) {
  struct bpfgrant_loop_status* status;
  struct bpfgrant_rings* rings;
  __u32 zero = 0;
  __s32 detail;

  status = bpf_map_lookup_elem(&bpfgrant_status, &zero);
  if (!status) return BPFGRANT_KERNEL_STOP;
  if (!bpfgrant_gate_open()) return stop(status, BPFGRANT_STOP_REVOKED, 0);
  // Submitting needs it, and the kernel does not look (io_submit_sqes): a task
  // that came by the ring without making it may have none.
  if (bpfgrant_task_check && !bpf_get_current_task_btf()->io_uring)
    return stop(status, BPFGRANT_STOP_TASK, 0);
  if (own.in_a_row >= bpfgrant_step_budget)
    return stop(status, BPFGRANT_STOP_BUDGET, 0);
  if (own.in_a_row++ == 0) {
    status->enters += 1;
    status->stop = BPFGRANT_STOP_NONE;
  }
  rings = (void*)bpf_io_uring_get_region___entry(
      ring, BPFGRANT_REGION_CQ,
      sizeof(*rings) + bpfgrant_cq_entries * sizeof(rings->cqes[0]));
  if (!rings) return stop(status, BPFGRANT_STOP_GEOMETRY, 0);
  if (woken(rings, &detail)) return stop(status, BPFGRANT_STOP_WOKEN, detail);
  if (own.polling) {
    own.polling = 0;
    if ((__s32)(own.wait_for - rings->cq_tail) > 0)
      return stop(status, BPFGRANT_STOP_IDLE, 0);
  }
  return step(ring, params, status, rings);
}

// The verifier lets GPL programs only call the kernel's functions.
char LICENSE[] SEC("license") = "GPL";

// Linked into every loop: the kernel learns from it which program is which.
struct io_uring_bpf_ops {
  int (*loop_step)(struct io_ring_ctx* ring, struct iou_loop_params* params);
  __u32 ring_fd;
  void* priv;
};

SEC(".struct_ops.link")
struct io_uring_bpf_ops bpfgrant_ops = {
    .loop_step = (void*)bpfgrant_loop,
};
