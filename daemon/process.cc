#include "daemon/process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::daemon {

std::optional<pid_t> PidOf(int pidfd) {
  const UniqueFd file(open(absl::StrCat("/proc/self/fdinfo/", pidfd).c_str(),
                           O_RDONLY | O_CLOEXEC));
  std::array<char, 512> text{};
  const ssize_t length =
      file.valid() ? read(file.get(), text.data(), text.size() - 1) : -1;
  const char* line = length > 0 ? strstr(text.data(), "\nPid:") : nullptr;
  int pid = 0;
  if (line == nullptr || sscanf(line, "\nPid: %d", &pid) != 1 || pid <= 0) {
    return std::nullopt;
  }
  return pid;
}

bool IsAlive(int pidfd) {
  pollfd watch{pidfd, POLLIN, 0};
  return poll(&watch, 1, 0) == 0;
}

UniqueFd OpenAgain(int pidfd) {
  const std::optional<pid_t> pid = PidOf(pidfd);
  if (!pid.has_value()) return UniqueFd();
  UniqueFd again(static_cast<int>(syscall(SYS_pidfd_open, *pid, 0)));
  // The number was still this process's only if it is alive now.
  return IsAlive(pidfd) ? std::move(again) : UniqueFd();
}

}  // namespace bpfgrant::daemon
