#include "tests/harness/unprivileged.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/harness/become_nobody.h"

namespace bpfgrant::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// Above every number that a test gives its child; below the least limit.
constexpr int kParkingFrom = 512;

// What the child tells of a start that failed, in one write.
struct Failure {
  int error;
  char step[60];
};

// All that the child needs, made before the fork: afterwards it must not
// allocate.
struct ChildPlan {
  int binary;
  int report;  // the write end of a close-on-exec pipe
  std::vector<std::pair<int, int>> fds;
  std::vector<char*> arguments, environment;
  const UnprivilegedOptions* options;
};

absl::Status Failed(const std::string& what) {
  return absl::InternalError(absl::StrCat(what, ": ", std::strerror(errno)));
}

// Puts every fd at its number. First all out of the way, for one's number may
// be another's place.
bool PlaceFds(ChildPlan& plan) {
  for (auto& [fd, number] : plan.fds) {
    fd = fcntl(fd, F_DUPFD_CLOEXEC, kParkingFrom);
    if (fd < 0) return false;
  }
  plan.binary = fcntl(plan.binary, F_DUPFD_CLOEXEC, kParkingFrom);
  plan.report = fcntl(plan.report, F_DUPFD_CLOEXEC, kParkingFrom);
  if (plan.binary < 0 || plan.report < 0) return false;
  // All others go at exec, whoever opened them.
  if (syscall(SYS_close_range, 0, ~0U, CLOSE_RANGE_CLOEXEC) < 0) return false;
  for (const auto& [fd, number] : plan.fds) {
    if (dup2(fd, number) < 0) return false;
  }
  return true;
}

void ResetSignals() {
  struct sigaction by_default {};
  by_default.sa_handler = SIG_DFL;
  for (int number = 1; number < 32; ++number) {
    sigaction(number, &by_default, nullptr);
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

[[noreturn]] void RunChild(ChildPlan& plan, pid_t parent) {
  const char* step = nullptr;
  ResetSignals();
  if (!PlaceFds(plan)) step = "placing fds";
  if (step == nullptr) {
    step = BecomeNobody(plan.options->uid, plan.options->gid,
                        plan.options->no_new_privileges);
  }
  if (step == nullptr) {
    // After the change of uid, which clears it.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);
    syscall(SYS_execveat, plan.binary, "", plan.arguments.data(),
            plan.environment.data(), AT_EMPTY_PATH);
    step = "execveat";
  }
  Failure failure{errno, {}};
  std::strncpy(failure.step, step, sizeof(failure.step) - 1);
  (void)!write(plan.report, &failure, sizeof(failure));
  _exit(127);
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& string : strings) pointers.push_back(string.data());
  pointers.push_back(nullptr);
  return pointers;
}

bool MakePipe(UniqueFd& read_end, UniqueFd& write_end) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) return false;
  read_end.reset(ends[0]);
  write_end.reset(ends[1]);
  return true;
}

int MillisecondsUntil(steady_clock::time_point deadline) {
  const auto left =
      std::chrono::ceil<milliseconds>(deadline - steady_clock::now());
  return static_cast<int>(std::clamp<int64_t>(left.count(), 0, 1'000'000));
}

// Appends what there is to read; closes `fd` at its end.
void Drain(UniqueFd& fd, std::string& text) {
  char buffer[4096];
  const ssize_t got = read(fd.get(), buffer, sizeof(buffer));
  if (got > 0) {
    text.append(buffer, static_cast<size_t>(got));
  } else if (got == 0 || errno != EINTR) {
    fd.reset();
  }
}

}  // namespace

std::string Outcome::Describe() const {
  return absl::StrCat("exit code ", exit_code, ", signal ", signal,
                      timed_out ? ", timed out" : "", "\n--- output\n", output,
                      "--- errors\n", errors, "---");
}

UnprivilegedProcess::UnprivilegedProcess(UnprivilegedProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      pidfd_(std::move(other.pidfd_)),
      input_(std::move(other.input_)),
      output_(std::move(other.output_)),
      errors_(std::move(other.errors_)),
      deadline_(other.deadline_),
      output_text_(std::move(other.output_text_)),
      errors_text_(std::move(other.errors_text_)),
      lines_seen_(other.lines_seen_) {}

UnprivilegedProcess::~UnprivilegedProcess() {
  if (pid_ < 0) return;
  Kill(SIGKILL);
  waitpid(pid_, nullptr, 0);
}

absl::StatusOr<UnprivilegedProcess> UnprivilegedProcess::Spawn(
    const std::string& binary, const std::vector<std::string>& arguments,
    const UnprivilegedOptions& options) {
  UnprivilegedProcess process;
  UniqueFd child_input, child_output, child_errors, report, child_report;
  UniqueFd file(open(binary.c_str(), O_PATH | O_CLOEXEC));
  if (!file.valid()) return Failed(binary);
  if (!MakePipe(child_input, process.input_) ||
      !MakePipe(report, child_report)) {
    return Failed("pipe");
  }
  ChildPlan plan{file.get(), child_report.get(), options.fds, {}, {}, &options};
  plan.fds.emplace_back(child_input.get(), STDIN_FILENO);
  if (options.pipe_output) {
    if (!MakePipe(process.output_, child_output) ||
        !MakePipe(process.errors_, child_errors)) {
      return Failed("pipe");
    }
    plan.fds.emplace_back(child_output.get(), STDOUT_FILENO);
    plan.fds.emplace_back(child_errors.get(), STDERR_FILENO);
  } else {
    plan.fds.emplace_back(STDOUT_FILENO, STDOUT_FILENO);
    plan.fds.emplace_back(STDERR_FILENO, STDERR_FILENO);
  }
  std::vector<std::string> words = {binary};
  words.insert(words.end(), arguments.begin(), arguments.end());
  plan.arguments = Pointers(words);
  std::vector<std::string> environment = options.environment;
  environment.push_back("PATH=/usr/sbin:/usr/bin:/sbin:/bin");
  plan.environment = Pointers(environment);

  process.deadline_ = steady_clock::now() + options.timeout;
  const pid_t parent = getpid();
  process.pid_ = fork();
  if (process.pid_ < 0) return Failed("fork");
  if (process.pid_ == 0) RunChild(plan, parent);
  process.pidfd_.reset(
      static_cast<int>(syscall(SYS_pidfd_open, process.pid_, 0)));
  child_report.reset();
  Failure failure{};
  if (read(report.get(), &failure, sizeof(failure)) > 0) {
    errno = failure.error;
    return Failed(absl::StrCat(binary, ": ", failure.step));
  }
  return process;
}

absl::Status UnprivilegedProcess::WriteLine(const std::string& line) {
  const std::string bytes = absl::StrCat(line, "\n");
  // A child that is gone must not end the test by a signal.
  const auto before = signal(SIGPIPE, SIG_IGN);
  const ssize_t written = write(input_.get(), bytes.data(), bytes.size());
  const int error = errno;
  signal(SIGPIPE, before);
  errno = error;
  if (written != static_cast<ssize_t>(bytes.size())) {
    return Failed("writing to the child");
  }
  return absl::OkStatus();
}

bool UnprivilegedProcess::ReadMore(steady_clock::time_point deadline) {
  pollfd streams[2] = {{output_.get(), POLLIN, 0}, {errors_.get(), POLLIN, 0}};
  if (!output_.valid() && !errors_.valid()) return false;
  if (poll(streams, 2, MillisecondsUntil(deadline)) <= 0) {
    return steady_clock::now() < deadline;
  }
  if (streams[0].revents != 0) Drain(output_, output_text_);
  if (streams[1].revents != 0) Drain(errors_, errors_text_);
  return true;
}

absl::StatusOr<std::string> UnprivilegedProcess::WaitForLine(
    const std::string& prefix, milliseconds timeout) {
  const auto deadline = steady_clock::now() + timeout;
  while (true) {
    size_t end;
    while ((end = output_text_.find('\n', lines_seen_)) != std::string::npos) {
      std::string line = output_text_.substr(lines_seen_, end - lines_seen_);
      lines_seen_ = end + 1;
      if (absl::StartsWith(line, prefix)) return line;
    }
    const bool more = output_.valid() && ReadMore(deadline);
    if (more || output_text_.find('\n', lines_seen_) != std::string::npos) {
      continue;
    }
    const std::string what = absl::StrCat(
        "no line '", prefix, "'; output: ", output_text_, errors_text_);
    return output_.valid() ? absl::DeadlineExceededError(what)
                           : absl::OutOfRangeError(what);
  }
}

void UnprivilegedProcess::Kill(int signal) {
  if (pid_ > 0) kill(pid_, signal);
}

Outcome UnprivilegedProcess::Wait() {
  Outcome outcome;
  input_.reset();
  // A grandchild may hold the streams open: the child's own end counts.
  pollfd ended = {pidfd_.get(), POLLIN, 0};
  while (poll(&ended, 1, 0) == 0) {
    if (steady_clock::now() >= deadline_) {
      outcome.timed_out = true;
      Kill(SIGKILL);
      break;
    }
    const auto soon = steady_clock::now() + milliseconds(20);
    if (!output_.valid() && !errors_.valid()) {
      poll(&ended, 1, MillisecondsUntil(std::min(deadline_, soon)));
    } else {
      ReadMore(std::min(deadline_, soon));
    }
  }
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = -1;
  // What is left in the pipes, without waiting for anybody.
  for (bool more = true; more;) {
    pollfd streams[2] = {{output_.get(), POLLIN, 0},
                         {errors_.get(), POLLIN, 0}};
    more = poll(streams, 2, 0) > 0;
    if (streams[0].revents != 0) Drain(output_, output_text_);
    if (streams[1].revents != 0) Drain(errors_, errors_text_);
  }
  if (WIFEXITED(status)) outcome.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) outcome.signal = WTERMSIG(status);
  outcome.output = output_text_;
  outcome.errors = errors_text_;
  return outcome;
}

Outcome RunUnprivileged(const std::string& binary,
                        const std::vector<std::string>& arguments,
                        const UnprivilegedOptions& options) {
  auto process = UnprivilegedProcess::Spawn(binary, arguments, options);
  if (process.ok()) {
    process->CloseInput();
    return process->Wait();
  }
  Outcome outcome;
  outcome.errors = std::string(process.status().message());
  return outcome;
}

}  // namespace bpfgrant::test
