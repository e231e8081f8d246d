// The kernel's own worker threads of the thread that runs a loop.

#ifndef CLIENT_LOOP_WORKERS_H_
#define CLIENT_LOOP_WORKERS_H_

#include "absl/status/status.h"

namespace bpfgrant {

// Has the kernel start the calling thread's first worker of each kind (for
// regular files, and for what can block without end), and returns when each has
// done something. They stay: the last one of a kind does not end before the
// thread.
//
// Otherwise the first request of a loop that cannot be done at once would start
// one from within the BPF program, whose state Linux 7.2 passes on: the worker
// cannot be moved to another processor for the rest of its life, and the
// scheduler complains (WARNING in set_task_cpu) when it tries.
absl::Status StartWorkers();

}  // namespace bpfgrant

#endif  // CLIENT_LOOP_WORKERS_H_
