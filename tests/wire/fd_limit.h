// RLIMIT_NOFILE, put back at the end of a scope.

#ifndef TESTS_WIRE_FD_LIMIT_H_
#define TESTS_WIRE_FD_LIMIT_H_

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "gtest/gtest.h"

namespace bpfgrant::broker_test {

class FdLimit {
 public:
  // Lets this process open nothing more: every number below the new limit is
  // taken.
  FdLimit() : FdLimit(LowestFree()) {}
  explicit FdLimit(rlim_t limit) {
    EXPECT_EQ(getrlimit(RLIMIT_NOFILE, &old_), 0);
    rlimit changed = old_;
    changed.rlim_cur = limit;
    EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &changed), 0);
  }
  ~FdLimit() { setrlimit(RLIMIT_NOFILE, &old_); }
  FdLimit(const FdLimit&) = delete;
  FdLimit& operator=(const FdLimit&) = delete;

  // As many as this process may have.
  static rlim_t Most() {
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_max;
  }

 private:
  static rlim_t LowestFree() {
    const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    close(fd);
    return static_cast<rlim_t>(fd);
  }

  rlimit old_{};
};

}  // namespace bpfgrant::broker_test

#endif  // TESTS_WIRE_FD_LIMIT_H_
