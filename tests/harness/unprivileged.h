// Runs a binary as nobody: uid and gid 65534, no groups, no capability in any
// set and none to be regained. What tests call a client is started here.
//
// It must not weaken the child beyond that: no namespaces, no seccomp.

#ifndef TESTS_HARNESS_UNPRIVILEGED_H_
#define TESTS_HARNESS_UNPRIVILEGED_H_

#include <sys/types.h>

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::test {

inline constexpr uid_t kNobody = 65534;

struct UnprivilegedOptions {
  uid_t uid = kNobody;
  gid_t gid = kNobody;
  // Our fd, and its number in the child. 0 to 2 are taken. Ours remains open.
  std::vector<std::pair<int, int>> fds;
  // "NAME=value"; the child's whole environment, besides PATH.
  std::vector<std::string> environment;
  bool no_new_privileges = false;
  // Collects what the child writes; without it, the child writes where the test
  // does.
  bool pipe_output = true;
  // After which the child is killed by Wait.
  std::chrono::milliseconds timeout{30'000};
};

struct Outcome {
  int exit_code = -1;  // -1: it did not exit
  int signal = 0;      // that ended it; 0: none
  bool timed_out = false;
  std::string output;  // standard output
  std::string errors;  // standard error

  bool ok() const { return exit_code == 0; }
  // All of it, for a failing test to print.
  std::string Describe() const;
};

// A running child, killed by the destructor if nobody waited for it. It does
// not outlive the thread that started it.
class UnprivilegedProcess {
 public:
  // Starts `binary`, a path; `arguments` follow its name. The binary need not
  // be in a folder that nobody can enter, but must be executable for nobody.
  //
  // kInternal: it could not be started, with the step and its errno.
  static absl::StatusOr<UnprivilegedProcess> Spawn(
      const std::string& binary, const std::vector<std::string>& arguments,
      const UnprivilegedOptions& options = {});

  UnprivilegedProcess(UnprivilegedProcess&& other) noexcept;
  UnprivilegedProcess& operator=(UnprivilegedProcess&&) = delete;
  ~UnprivilegedProcess();

  // Valid until Wait has returned.
  pid_t pid() const { return pid_; }

  // Writes `line` and a newline to the child's standard input.
  absl::Status WriteLine(const std::string& line);
  // Closes the child's standard input.
  void CloseInput() { input_.reset(); }

  // Reads standard output until a line begins with `prefix`, and returns that
  // line. kDeadlineExceeded: not within `timeout`. kOutOfRange: output ended.
  absl::StatusOr<std::string> WaitForLine(
      const std::string& prefix,
      std::chrono::milliseconds timeout = std::chrono::milliseconds(10'000));

  void Kill(int signal);

  // Waits for the end; kills the child when the options' timeout, counted from
  // its start, is over. Once.
  Outcome Wait();

 private:
  UnprivilegedProcess() = default;

  // Takes what there is to read, waiting until `deadline` for more. False at
  // the end of both streams or when the deadline has passed.
  bool ReadMore(std::chrono::steady_clock::time_point deadline);

  pid_t pid_ = -1;
  UniqueFd pidfd_, input_, output_, errors_;
  std::chrono::steady_clock::time_point deadline_;
  std::string output_text_, errors_text_;
  size_t lines_seen_ = 0;  // bytes of output_text_ that WaitForLine has gone by
};

// Spawn and Wait. A child that could not be started has exit_code -1 and the
// reason in `errors`.
Outcome RunUnprivileged(const std::string& binary,
                        const std::vector<std::string>& arguments,
                        const UnprivilegedOptions& options = {});

}  // namespace bpfgrant::test

#endif  // TESTS_HARNESS_UNPRIVILEGED_H_
