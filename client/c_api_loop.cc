// io_uring loops in C.

#include <chrono>
#include <memory>
#include <vector>

#include "client/bpfgrant/loop.h"
#include "client/c_api.h"

struct bpfgrant_uring_loop {
  explicit bpfgrant_uring_loop(bpfgrant::Loop made) : loop(std::move(made)) {
    if (loop.grant() != nullptr) grant.emplace(loop.grant());
  }

  bpfgrant::Loop loop;
  std::optional<bpfgrant_grant> grant;
};

namespace bpfgrant {
namespace {

constexpr size_t kFirstLoopBytes =
    BPFGRANT_FIRST_BYTES(bpfgrant_uring_loop_options, files);
constexpr size_t kFirstStoppedBytes =
    BPFGRANT_FIRST_BYTES(bpfgrant_stopped, detail);

int ReadOptions(const bpfgrant_uring_loop_options* given,
                Loop::Options& options, bpfgrant_error* error) {
  bpfgrant_uring_loop_options copy = BPFGRANT_URING_LOOP_OPTIONS_INIT;
  if (const int wrong = CopyIn(given, kFirstLoopBytes, copy); wrong < 0) {
    FailInvalid("bpfgrant_uring_loop_options: not of a known size", error);
    return wrong;
  }
  switch (copy.where) {
    case BPFGRANT_LOOP_KERNEL_ONLY:
      options.where = Loop::Where::kKernelOnly;
      break;
    case BPFGRANT_LOOP_KERNEL_ELSE_PROCESS:
      options.where = Loop::Where::kKernelElseProcess;
      break;
    case BPFGRANT_LOOP_PROCESS_ONLY:
      options.where = Loop::Where::kProcessOnly;
      break;
    default:
      return FailInvalid("bpfgrant_loop_where: there is no such place", error);
  }
  options.program = TextOf(copy.program);
  options.interface = TextOf(copy.interface);
  options.interface_hash = TextOf(copy.interface_hash);
  options.native = copy.native;
  if (copy.sq_entries > 0) options.sq_entries = copy.sq_entries;
  if (copy.cq_entries > 0) options.cq_entries = copy.cq_entries;
  if (copy.step_budget > 0) options.step_budget = copy.step_budget;
  options.memory_bytes = copy.memory_bytes;
  if (copy.memory != nullptr) {
    options.memory = {static_cast<std::byte*>(copy.memory), copy.memory_length};
  }
  if (copy.buffer_count > 0) {
    options.buffers.assign(copy.buffers, copy.buffers + copy.buffer_count);
  }
  if (copy.file_count > 0) {
    options.files.assign(copy.files, copy.files + copy.file_count);
  }
  return 0;
}

uint32_t CauseInC(Loop::Stop::Cause cause) {
  switch (cause) {
    case Loop::Stop::Cause::kLoop:
      return BPFGRANT_CAUSE_LOOP;
    case Loop::Stop::Cause::kInterrupted:
      return BPFGRANT_CAUSE_INTERRUPTED;
    case Loop::Stop::Cause::kDeadline:
      return BPFGRANT_CAUSE_DEADLINE;
    case Loop::Stop::Cause::kDetached:
      return BPFGRANT_CAUSE_DETACHED;
  }
  return BPFGRANT_CAUSE_LOOP;
}

}  // namespace
}  // namespace bpfgrant

int bpfgrant_uring_loop_create(bpfgrant_connection* connection,
                               const bpfgrant_uring_loop_options* options,
                               bpfgrant_uring_loop** loop,
                               bpfgrant_error* error) noexcept {
  *loop = nullptr;
  bpfgrant::Loop::Options read;
  if (const int wrong = bpfgrant::ReadOptions(options, read, error);
      wrong < 0) {
    return wrong;
  }
  auto made = bpfgrant::Loop::Create(
      connection == nullptr ? nullptr : &connection->connection,
      std::move(read));
  if (!made.ok()) return bpfgrant::Fail(made.status(), error);
  *loop = new bpfgrant_uring_loop(*std::move(made));
  return 0;
}

void bpfgrant_uring_loop_free(bpfgrant_uring_loop* loop) noexcept {
  delete loop;
}

int bpfgrant_uring_loop_in_kernel(const bpfgrant_uring_loop* loop) noexcept {
  return loop->loop.place() == bpfgrant::Loop::Place::kKernel;
}

const char* bpfgrant_uring_loop_place_reason(
    const bpfgrant_uring_loop* loop) noexcept {
  return loop->loop.place_reason().c_str();
}

void* bpfgrant_uring_loop_memory(bpfgrant_uring_loop* loop,
                                 size_t* bytes) noexcept {
  const auto memory = loop->loop.memory();
  if (bytes != nullptr) *bytes = memory.size();
  return memory.data();
}

int bpfgrant_uring_loop_run(bpfgrant_uring_loop* loop, uint32_t flags,
                            uint64_t deadline_ns, bpfgrant_stopped* stopped,
                            bpfgrant_error* error) noexcept {
  constexpr uint32_t kKnown = BPFGRANT_RUN_NO_WAIT | BPFGRANT_RUN_STOP_BUDGET;
  if ((flags & ~kKnown) != 0) {
    return bpfgrant::FailInvalid("bpfgrant_run_flags: unknown ones", error);
  }
  // A stop that cannot be told must not be lost.
  if (stopped->size < bpfgrant::kFirstStoppedBytes) {
    return bpfgrant::FailInvalid("bpfgrant_stopped: not of a known size",
                                 error);
  }
  bpfgrant::Loop::RunOptions options;
  if (deadline_ns > 0) {
    // std::chrono::steady_clock is CLOCK_MONOTONIC.
    options.deadline = std::chrono::steady_clock::time_point(
        std::chrono::nanoseconds(deadline_ns));
  }
  options.wait = (flags & BPFGRANT_RUN_NO_WAIT) == 0;
  options.through_budget = (flags & BPFGRANT_RUN_STOP_BUDGET) == 0;
  const auto stop = loop->loop.Run(options);
  if (!stop.ok()) return bpfgrant::Fail(stop.status(), error);
  bpfgrant_stopped c = BPFGRANT_STOPPED_INIT;
  c.cause = bpfgrant::CauseInC(stop->cause);
  c.why = stop->why;
  c.detail = stop->detail;
  return bpfgrant::CopyOut(c, bpfgrant::kFirstStoppedBytes, stopped);
}

int bpfgrant_uring_loop_wake(bpfgrant_uring_loop* loop, int32_t detail,
                             bpfgrant_error* error) noexcept {
  return bpfgrant::ResultOf(loop->loop.Wake(detail), error);
}

int bpfgrant_uring_loop_event_fd(const bpfgrant_uring_loop* loop) noexcept {
  return loop->loop.event_fd();
}

const io_uring_cqe* bpfgrant_uring_loop_peek_completion(
    bpfgrant_uring_loop* loop) noexcept {
  return loop->loop.PeekCompletion();
}

void bpfgrant_uring_loop_seen_completion(bpfgrant_uring_loop* loop) noexcept {
  loop->loop.SeenCompletion();
}

const bpfgrant_loop_status* bpfgrant_uring_loop_status(
    const bpfgrant_uring_loop* loop) noexcept {
  return &loop->loop.status();
}

uint64_t bpfgrant_uring_loop_enters(const bpfgrant_uring_loop* loop) noexcept {
  return loop->loop.enters();
}

int bpfgrant_uring_loop_ring_fd(const bpfgrant_uring_loop* loop) noexcept {
  return loop->loop.ring_fd();
}

int bpfgrant_uring_loop_events(bpfgrant_uring_loop* loop,
                               bpfgrant_ring_buffer** events,
                               bpfgrant_error* error) noexcept {
  return bpfgrant::Give(loop->loop.Events(), events, error);
}

bpfgrant_grant* bpfgrant_uring_loop_grant(bpfgrant_uring_loop* loop) noexcept {
  return loop->grant ? &*loop->grant : nullptr;
}
