#include "daemon/loader/child.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::daemon {
namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void Work(const std::function<int(int)>& work, int pipe) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  _exit(work(pipe));
}

// Whether there is something to read before then.
bool WaitFor(int fd, Clock::time_point until) {
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now());
    if (left.count() <= 0) return false;
    pollfd polled{fd, POLLIN, 0};
    const int ready = poll(&polled, 1, static_cast<int>(left.count()));
    if (ready >= 0) return ready > 0;
    if (errno != EINTR) return false;
  }
}

// Until it has ended, which it has not yet when it closes the pipe.
ChildEnd::Why Listen(int pipe, int pidfd, Clock::time_point until, size_t most,
                     std::string& said) {
  std::array<char, 65536> buffer;
  while (WaitFor(pipe, until)) {
    const ssize_t length = read(pipe, buffer.data(), buffer.size());
    if (length < 0 && errno == EINTR) continue;
    if (length <= 0) {
      return WaitFor(pidfd, until) ? ChildEnd::Why::kItself
                                   : ChildEnd::Why::kTooLate;
    }
    said.append(buffer.data(), static_cast<size_t>(length));
    if (said.size() > most) return ChildEnd::Why::kSaidTooMuch;
  }
  return ChildEnd::Why::kTooLate;
}

absl::Status Failed(const char* call) {
  return absl::InternalError(
      absl::StrCat("a child process: ", call, ": ", std::strerror(errno)));
}

}  // namespace

absl::StatusOr<ChildEnd> RunInChild(const std::function<int(int pipe)>& work,
                                    std::chrono::milliseconds deadline,
                                    size_t most) {
  const auto until = Clock::now() + deadline;
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) return Failed("pipe2");
  const UniqueFd reading(ends[0]);
  UniqueFd writing(ends[1]);
  const pid_t child = fork();
  if (child < 0) return Failed("fork");
  if (child == 0) Work(work, writing.get());
  writing.reset();
  const UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, child, 0)));
  ChildEnd end;
  absl::Status opened;
  if (pidfd.valid()) {
    end.why = Listen(reading.get(), pidfd.get(), until, most, end.said);
  } else {
    opened = Failed("pidfd_open");
  }
  if (!opened.ok() || end.why != ChildEnd::Why::kItself) kill(child, SIGKILL);
  while (waitpid(child, &end.status, 0) < 0 && errno == EINTR) {
  }
  if (!opened.ok()) return opened;
  return end;
}

bool SayAll(int pipe, std::string_view text) {
  while (!text.empty()) {
    const ssize_t length = write(pipe, text.data(), text.size());
    if (length < 0 && errno == EINTR) continue;
    if (length < 0) return false;
    text.remove_prefix(static_cast<size_t>(length));
  }
  return true;
}

void LiveNoLongerThan(pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // It may have died before that call.
  if (getppid() != parent) _exit(1);
}

void CloseAllBut(std::vector<int> kept) {
  std::sort(kept.begin(), kept.end());
  unsigned int first = 0;
  for (const int fd : kept) {
    const auto number = static_cast<unsigned int>(fd);
    if (number > first) syscall(SYS_close_range, first, number - 1, 0);
    first = number + 1;
  }
  syscall(SYS_close_range, first, ~0U, 0);
}

}  // namespace bpfgrant::daemon
