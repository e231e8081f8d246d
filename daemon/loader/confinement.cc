#include "daemon/loader/confinement.h"

#include <seccomp.h>
#include <sys/capability.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "daemon/loader/child.h"
#include "daemon/loader/privileges.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::daemon {
namespace {

// A kernel's file with all its debugging information is mapped, too.
constexpr rlim_t kMaxAddressSpace = rlim_t{4} << 30;

// A report on a catalog has some KiB for each program.
constexpr size_t kMaxResultBytes = size_t{64} << 20;

// The first byte of what the child says.
constexpr char kDone = '+';
constexpr char kRefused = '-';
constexpr char kFailed = '!';  // the status's code is the next

absl::Status Confine() {
  const rlimit memory{kMaxAddressSpace, kMaxAddressSpace};
  if (setrlimit(RLIMIT_AS, &memory) < 0) {
    return absl::InternalError(
        absl::StrCat("setrlimit: ", std::strerror(errno)));
  }
  return MayLoad() ? DropToLoader(false, false) : absl::OkStatus();
}

bool Say(int pipe, const absl::StatusOr<std::string>& result) {
  std::string said(1, kDone);
  if (result.ok()) {
    said += *result;
  } else if (ReasonOf(result.status()) != v1::REASON_INTERNAL) {
    said = kRefused + RefusalOf(result.status()).SerializeAsString();
  } else {
    said = {kFailed, static_cast<char>(result.status().code())};
    said += std::string(result.status().message());
  }
  return SayAll(pipe, said);
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
  if (!WIFSIGNALED(status)) {
    return absl::InternalError("the reader ended without a word");
  }
  return Refuse(v1::REASON_FILE_INVALID,
                absl::StrCat("the reader died of what it read (signal ",
                             WTERMSIG(status), ")"));
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

absl::Status ForbidSystemCalls() {
  // libbpf makes files in memory, which only stand for maps.
  const rlimit empty{0, 0};
  if (setrlimit(RLIMIT_FSIZE, &empty) < 0) {
    return absl::InternalError(
        absl::StrCat("setrlimit: ", std::strerror(errno)));
  }
  const std::unique_ptr<void, void (*)(void*)> filter(
      seccomp_init(SCMP_ACT_ERRNO(EPERM)), seccomp_release);
  if (filter == nullptr) return absl::InternalError("seccomp_init");
  for (const int call : {SCMP_SYS(brk),
                         SCMP_SYS(mmap),
                         SCMP_SYS(munmap),
                         SCMP_SYS(mremap),
                         SCMP_SYS(mprotect),
                         SCMP_SYS(madvise),
                         SCMP_SYS(futex),
                         SCMP_SYS(write),
                         SCMP_SYS(memfd_create),
                         SCMP_SYS(fcntl),
                         SCMP_SYS(close),
                         SCMP_SYS(uname),
                         SCMP_SYS(rt_sigprocmask),
                         SCMP_SYS(rt_sigaction),
                         SCMP_SYS(rt_sigreturn),
                         SCMP_SYS(gettid),
                         SCMP_SYS(getpid),
                         SCMP_SYS(tgkill),
                         SCMP_SYS(exit),
                         SCMP_SYS(exit_group)}) {
    const int result = seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, call, 0);
    if (result < 0) {
      return absl::InternalError(
          absl::StrCat("seccomp_rule_add: ", std::strerror(-result)));
    }
  }
  const int result = seccomp_load(filter.get());
  if (result == 0) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("seccomp_load: ", std::strerror(-result)));
}

absl::StatusOr<std::string> RunConfined(
    const std::function<absl::StatusOr<std::string>()>& work,
    std::chrono::milliseconds deadline) {
  const auto end = RunInChild(
      [&](int pipe) {
        const absl::Status confined = Confine();
        const auto result =
            confined.ok() ? work() : absl::StatusOr<std::string>(confined);
        return Say(pipe, result) ? 0 : 1;
      },
      deadline, kMaxResultBytes);
  if (!end.ok()) return end.status();
  switch (end->why) {
    case ChildEnd::Why::kTooLate:
      return absl::DeadlineExceededError(
          absl::StrCat("it took longer than ", deadline.count(), " ms"));
    case ChildEnd::Why::kSaidTooMuch:
      return absl::ResourceExhaustedError(
          absl::StrCat("its result has more than ", kMaxResultBytes, " bytes"));
    case ChildEnd::Why::kItself:
      break;
  }
  return Understand(end->said, end->status);
}

}  // namespace bpfgrant::daemon
