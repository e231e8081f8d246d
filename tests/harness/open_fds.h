// The open fds of a process, as /proc tells them: hostile tests compare them
// before and after.

#ifndef TESTS_HARNESS_OPEN_FDS_H_
#define TESTS_HARNESS_OPEN_FDS_H_

#include <sys/types.h>

#include <chrono>
#include <map>
#include <string>

namespace bpfgrant::test {

// Number and what it is ("socket:[4711]", "anon_inode:bpf-map", a path). Empty
// if there is no such process or it may not be looked at. What the listing
// itself opens is left out.
std::map<int, std::string> OpenFds(pid_t process);

size_t CountOpenFds(pid_t process);

// Those of `fds` whose target contains `part`.
size_t CountFdsLike(const std::map<int, std::string>& fds,
                    const std::string& part);

// Waits until the process has `count` fds, or fewer. Returns how many it had at
// last: more than `count` if `timeout` went by.
size_t WaitForOpenFds(pid_t process, size_t count,
                      std::chrono::milliseconds timeout);

// One per line, for a failing test to print.
std::string Describe(const std::map<int, std::string>& fds);

}  // namespace bpfgrant::test

#endif  // TESTS_HARNESS_OPEN_FDS_H_
