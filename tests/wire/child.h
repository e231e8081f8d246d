// A forked child that does a few system calls and is gone.

#ifndef TESTS_WIRE_CHILD_H_
#define TESTS_WIRE_CHILD_H_

#include <sys/wait.h>
#include <unistd.h>

#include "gtest/gtest.h"

namespace bpfgrant::broker_test {

// Runs `work` in a child and waits for it; whether it returned true. This
// process has threads, so `work` must do with system calls: no allocation.
template <typename Work>
bool InChild(Work work) {
  const pid_t child = fork();
  if (child == 0) _exit(work() ? 0 : 1);
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace bpfgrant::broker_test

#endif  // TESTS_WIRE_CHILD_H_
