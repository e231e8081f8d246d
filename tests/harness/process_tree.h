// Processes as /proc tells them, and waiting for their end.

#ifndef TESTS_HARNESS_PROCESS_TREE_H_
#define TESTS_HARNESS_PROCESS_TREE_H_

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <vector>

namespace bpfgrant::test {

// The processes whose parent is `process` now.
std::vector<pid_t> ChildrenOf(pid_t process);

// Whether there is such a process, and it has not ended: a zombie has.
bool IsRunning(pid_t process);

// Asks `condition` every few milliseconds until it holds. False: it did not
// within `timeout`.
bool WaitUntil(const std::function<bool()>& condition,
               std::chrono::milliseconds timeout);

// Starts a process that outlives this one and then kills the process group
// `group`, so that a test which crashes leaves nothing behind. It watches the
// write end of a pipe, which it returns: the group is killed when all copies of
// that are closed, unless the guard was killed before. -1: it could not start.
struct Guard {
  pid_t process = -1;
  int alive = -1;  // the caller's to close
};
Guard GuardGroup(pid_t group);

}  // namespace bpfgrant::test

#endif  // TESTS_HARNESS_PROCESS_TREE_H_
