#include "daemon/loader/confinement.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "daemon/loader/privileges.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::daemon {
namespace {

// A kernel's file with all its debugging information is mapped, too.
constexpr rlim_t kMaxAddressSpace = rlim_t{4} << 30;

// The first byte of what the child says.
constexpr char kDone = '+';
constexpr char kRefused = '-';
constexpr char kFailed = '!';  // the status's code is the next

absl::Status ErrnoStatus(const char* call) {
  return absl::InternalError(absl::StrCat(call, ": ", std::strerror(errno)));
}

absl::Status Confine() {
  const rlimit no_core{0, 0};
  const rlimit memory{kMaxAddressSpace, kMaxAddressSpace};
  if (setrlimit(RLIMIT_CORE, &no_core) < 0 ||
      setrlimit(RLIMIT_AS, &memory) < 0) {
    return ErrnoStatus("setrlimit");
  }
  return MayLoad() ? DropToLoader(false) : absl::OkStatus();
}

void Say(int pipe, const absl::StatusOr<std::string>& result) {
  std::string said(1, kDone);
  if (result.ok()) {
    said += *result;
  } else if (ReasonOf(result.status()) != v1::REASON_INTERNAL) {
    said = kRefused + RefusalOf(result.status()).SerializeAsString();
  } else {
    said = {kFailed, static_cast<char>(result.status().code())};
    said += std::string(result.status().message());
  }
  std::string_view left = said;
  while (!left.empty()) {
    const ssize_t length = write(pipe, left.data(), left.size());
    if (length < 0 && errno == EINTR) continue;
    if (length < 0) _exit(2);
    left.remove_prefix(static_cast<size_t>(length));
  }
}

// Until the child closes its end; false: not before the deadline.
bool Listen(int pipe, std::chrono::milliseconds deadline, std::string& said) {
  using Clock = std::chrono::steady_clock;
  const auto until = Clock::now() + deadline;
  std::array<char, 65536> buffer;
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now());
    pollfd polled{pipe, POLLIN, 0};
    if (left.count() <= 0) return false;
    const int ready = poll(&polled, 1, static_cast<int>(left.count()));
    if (ready < 0 && errno == EINTR) continue;
    if (ready == 0) return false;
    const ssize_t length = read(pipe, buffer.data(), buffer.size());
    if (length < 0 && errno == EINTR) continue;
    if (length <= 0) return true;
    said.append(buffer.data(), static_cast<size_t>(length));
  }
}

absl::StatusOr<std::string> Understand(std::string_view said, int status) {
  if (said.starts_with(kDone) && WIFEXITED(status)) {
    return std::string(said.substr(1));
  }
  v1::Refusal refusal;
  if (said.starts_with(kRefused) &&
      refusal.ParseFromString(std::string(said.substr(1)))) {
    return StatusOf(refusal);
  }
  if (said.starts_with(kFailed) && said.size() > 1) {
    return absl::Status(static_cast<absl::StatusCode>(said[1]),
                        std::string(said.substr(2)));
  }
  return absl::InternalError(
      WIFSIGNALED(status)
          ? absl::StrCat("what was read crashed the reader (signal ",
                         WTERMSIG(status), ")")
          : std::string("the reader ended without a word"));
}

}  // namespace

bool MayLoad() {
  cap_t held = cap_get_proc();
  if (held == nullptr) return false;
  bool all = true;
  for (const cap_value_t capability : {CAP_BPF, CAP_PERFMON}) {
    cap_flag_value_t value = CAP_CLEAR;
    all = all && cap_get_flag(held, capability, CAP_EFFECTIVE, &value) == 0 &&
          value == CAP_SET;
  }
  cap_free(held);
  return all;
}

absl::StatusOr<std::string> RunConfined(
    const std::function<absl::StatusOr<std::string>()>& work,
    std::chrono::milliseconds deadline) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) return ErrnoStatus("pipe2");
  const UniqueFd reading(ends[0]);
  UniqueFd writing(ends[1]);
  const pid_t child = fork();
  if (child < 0) return ErrnoStatus("fork");
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const absl::Status confined = Confine();
    Say(writing.get(),
        confined.ok() ? work() : absl::StatusOr<std::string>(confined));
    _exit(0);
  }
  writing.reset();
  std::string said;
  const bool in_time = Listen(reading.get(), deadline, said);
  if (!in_time) kill(child, SIGKILL);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!in_time) {
    return absl::DeadlineExceededError(
        absl::StrCat("it took longer than ", deadline.count(), " ms"));
  }
  return Understand(said, status);
}

}  // namespace bpfgrant::daemon
