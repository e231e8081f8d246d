/* SPDX-License-Identifier: Apache-2.0 */
/*
 * count: runs the loop of counter.bpf.c in this process, by the C library and
 * without a daemon. With a connection and BPFGRANT_LOOP_KERNEL_ELSE_PROCESS it
 * would run in the kernel where the administrator has approved it.
 *
 *   cc count.c counter.bpf.c -o count \
 *       $(pkg-config --cflags --libs bpfgrant liburing)
 */
#include <bpfgrant/bpfgrant.h>
#include <bpfgrant/loop_native.h>
#include <stdio.h>

extern const struct bpfgrant_native_loop bpfgrant_native_counter;

struct counter_memory {
  unsigned wanted;
  unsigned done;
};

int main(void) {
  struct bpfgrant_error error = BPFGRANT_ERROR_INIT;
  struct bpfgrant_uring_loop_options options = BPFGRANT_URING_LOOP_OPTIONS_INIT;
  struct bpfgrant_stopped stopped = BPFGRANT_STOPPED_INIT;
  struct counter_memory* memory;
  bpfgrant_uring_loop* loop;
  int result;

  options.where = BPFGRANT_LOOP_PROCESS_ONLY;
  options.native = &bpfgrant_native_counter;
  options.memory_bytes = sizeof(*memory);
  if (bpfgrant_uring_loop_create(NULL, &options, &loop, &error) < 0) {
    fprintf(stderr, "count: %s\n", error.message);
    return 1;
  }
  memory = bpfgrant_uring_loop_memory(loop, NULL);
  memory->wanted = 1000;
  result = bpfgrant_uring_loop_run(loop, 0, 0, &stopped, &error);
  if (result < 0)
    fprintf(stderr, "count: %s\n", error.message);
  else
    printf("counted %u, stopped with %u\n", memory->done, stopped.why);
  bpfgrant_uring_loop_free(loop);
  return result < 0;
}
