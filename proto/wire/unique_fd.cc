#include "proto/wire/unique_fd.h"

#include <cerrno>

namespace bpfgrant {

void UniqueFd::reset(int fd) {
  const int old = std::exchange(fd_, fd);
  if (old < 0 || old == fd) return;
  const int saved = errno;
  // EINTR from close(2) means closed on Linux: never again.
  close(old);
  errno = saved;
}

}  // namespace bpfgrant
