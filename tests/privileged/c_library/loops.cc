#include <bpfgrant/loop_native.h>
#include <time.h>

#include <cerrno>
#include <cstring>

#include "bpf-programs/chain/chain.h"
#include "tests/privileged/c_library/client.h"

extern "C" const bpfgrant_native_loop bpfgrant_native_chain;

namespace {

// So many requests that do nothing.
void Write(chain_memory& memory, uint32_t items) {
  memory = {};
  memory.program.templates = 1;
  memory.program.items = items;
  memory.program.lanes = 1;
  memory.templates[0].opcode = IORING_OP_NOP;
}

void Use(bpfgrant_uring_loop* loop) {
  size_t bytes = 0;
  auto* const memory =
      static_cast<chain_memory*>(bpfgrant_uring_loop_memory(loop, &bytes));
  EXPECT_SAME(bytes >= sizeof(chain_memory), true);
  Write(*memory, 100);
  bpfgrant_stopped stopped = BPFGRANT_STOPPED_INIT;
  EXPECT_SAME(bpfgrant_uring_loop_run(loop, 0, 0, &stopped, &error), 0);
  EXPECT_SAME(stopped.cause, BPFGRANT_CAUSE_LOOP);
  EXPECT_SAME(stopped.why, BPFGRANT_STOP_DONE);
  EXPECT_SAME(memory->outcome.done, 100);
  EXPECT_SAME(bpfgrant_uring_loop_status(loop)->completions, 100);
  EXPECT_SAME(bpfgrant_uring_loop_enters(loop) > 0, true);
  EXPECT_SAME(bpfgrant_uring_loop_peek_completion(loop) == nullptr, true);

  // A wake is kept for the next run; a deadline that has passed stops it, too.
  EXPECT_SAME(bpfgrant_uring_loop_wake(loop, 42, &error), 0);
  EXPECT_SAME(bpfgrant_uring_loop_run(loop, 0, 0, &stopped, &error), 0);
  EXPECT_SAME(stopped.why, BPFGRANT_STOP_WOKEN);
  EXPECT_SAME(stopped.detail, 42);
  Write(*memory, 1);
  EXPECT_SAME(bpfgrant_uring_loop_run(loop, 0, 1, &stopped, &error), 0);
  EXPECT_SAME(stopped.cause, BPFGRANT_CAUSE_DEADLINE);

  // Mistakes.
  EXPECT_SAME(bpfgrant_uring_loop_run(loop, 4, 0, &stopped, &error), -EINVAL);
  stopped.size = 4;
  EXPECT_SAME(bpfgrant_uring_loop_run(loop, 0, 0, &stopped, &error), -EINVAL);
  bpfgrant_ring_buffer* events = nullptr;
  EXPECT_SAME(bpfgrant_uring_loop_events(loop, &events, &error), -ENOENT);
  EXPECT_SAME(bpfgrant_uring_loop_event_fd(loop) >= 0, true);
  EXPECT_SAME(bpfgrant_uring_loop_ring_fd(loop) >= 0, true);
}

}  // namespace

void RunLoops(bpfgrant_connection* connection) {
  bpfgrant_uring_loop_options options = BPFGRANT_URING_LOOP_OPTIONS_INIT;
  options.program = "chain";
  options.interface = "chain/1";
  options.native = &bpfgrant_native_chain;
  options.where = BPFGRANT_LOOP_KERNEL_ELSE_PROCESS;
  bpfgrant_uring_loop* loop = nullptr;
  EXPECT_SAME(bpfgrant_uring_loop_create(connection, &options, &loop, &error),
              0);
  std::printf("in the %s\n", bpfgrant_uring_loop_in_kernel(loop) == 1
                                 ? "kernel"
                                 : bpfgrant_uring_loop_place_reason(loop));
  bpfgrant_grant* const grant = bpfgrant_uring_loop_grant(loop);
  if (bpfgrant_uring_loop_in_kernel(loop) == 1) {
    EXPECT_SAME(bpfgrant_grant_delivery(grant), BPFGRANT_DELIVERY_RING);
    // The loop's alone.
    EXPECT_SAME(bpfgrant_grant_release(grant, &error), -EINVAL);
    bpfgrant_grant_free(grant);
    EXPECT_SAME(bpfgrant_grant_ended(grant), 0);
  } else {
    EXPECT_SAME(grant == nullptr, true);
  }
  Use(loop);
  bpfgrant_uring_loop_free(loop);

  options.where = BPFGRANT_LOOP_PROCESS_ONLY;
  options.memory_bytes = sizeof(chain_memory);
  EXPECT_SAME(bpfgrant_uring_loop_create(nullptr, &options, &loop, &error), 0);
  EXPECT_SAME(bpfgrant_uring_loop_in_kernel(loop), 0);
  Use(loop);
  bpfgrant_uring_loop_free(loop);
}
