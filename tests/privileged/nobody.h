// The test's end of the unprivileged client (client/commands.h): tells it what
// to do and reads what came out.

#ifndef TESTS_PRIVILEGED_NOBODY_H_
#define TESTS_PRIVILEGED_NOBODY_H_

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tests/harness/kernel_objects.h"
#include "tests/harness/unprivileged.h"

namespace bpfgrant::test {

// What the client was told about a grant.
struct Acquired {
  std::string index;  // its name in commands: "0"
  uint64_t grant = 0;
  std::string delivery;  // "program" or "attach"
  // The kernel's ids of what came, by handle; 0: the client could not ask.
  std::map<std::string, uint32_t> ids;

  uint32_t program() const;
  // All of it, for WaitUntilGone.
  KernelObjects objects() const;
};

class Nobody {
 public:
  // Starts it; a failure of the test if that does not work.
  explicit Nobody(const UnprivilegedOptions& options = Options());
  // The same of a copy of its binary.
  explicit Nobody(const std::string& binary);
  // Longer than any test: what hangs is the test's to notice.
  static UnprivilegedOptions Options();
  // Its binary.
  static std::string Path();

  // The client's answer, whatever it is; "" if none came, which fails the test.
  std::string Ask(const std::string& command);
  // The words behind "ok"; any other answer fails the test.
  std::vector<std::string> Do(const std::string& command);
  // The i-th of them; "" if there are not so many.
  std::string Word(const std::string& command, size_t i = 0);
  uint64_t Number(const std::string& command, size_t i = 0);
  // Acquires; a refusal fails the test. `how` is the rest of the command:
  // "packet_sampler program".
  Acquired Acquire(const std::string& how);

  // Without waiting for the answer, which Answer fetches.
  void Tell(const std::string& command);
  std::string Answer(std::chrono::milliseconds timeout);

  // An answer if one comes in that time, else "".
  std::string Listen(std::chrono::milliseconds timeout);

  // Kills it and waits for its end.
  void KillAndReap();
  pid_t pid() const { return process_->pid(); }

 private:
  Nobody(const std::string& binary, const UnprivilegedOptions& options);

  std::optional<UnprivilegedProcess> process_;
};

}  // namespace bpfgrant::test

#endif  // TESTS_PRIVILEGED_NOBODY_H_
