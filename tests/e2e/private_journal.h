// A journald of this test's own: real, and seen by nobody outside. The process
// is in a mount namespace of its own from then on.

#ifndef TESTS_E2E_PRIVATE_JOURNAL_H_
#define TESTS_E2E_PRIVATE_JOURNAL_H_

#include <sys/types.h>

#include <filesystem>
#include <string>

#include "absl/status/status.h"

namespace bpfgrant::test {

class PrivateJournal {
 public:
  PrivateJournal() = default;
  PrivateJournal(const PrivateJournal&) = delete;
  PrivateJournal& operator=(const PrivateJournal&) = delete;
  // Ends journald. What it has written goes with the namespace.
  ~PrivateJournal();

  // Needs root. Once in a process.
  absl::Status Start();

 private:
  pid_t journald_ = -1;
};

// While it lives, this process and what it starts are where systemd would have
// put them as the unit `name`; what was started stays there.
class InUnit {
 public:
  explicit InUnit(const std::string& name);
  ~InUnit();

  // Removes what is empty by now.
  static void RemoveUnit(const std::string& name);

 private:
  std::filesystem::path before_;
};

}  // namespace bpfgrant::test

#endif  // TESTS_E2E_PRIVATE_JOURNAL_H_
