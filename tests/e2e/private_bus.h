// A system bus of a test's own: a real dbus-daemon with the configuration that
// is installed, and, where wanted, a real polkitd on it with the test's rules.
// Neither is seen by the rest of the machine. Needs root.

#ifndef TESTS_E2E_PRIVATE_BUS_H_
#define TESTS_E2E_PRIVATE_BUS_H_

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tests/harness/private_folder.h"
#include "tests/harness/unprivileged.h"

namespace bpfgrant::test {

// Users without privilege whom it knows, as "operator-of-test" and
// "stranger-of-test".
inline constexpr uid_t kOperator = 64801;  // whom polkit may allow something
inline constexpr uid_t kStranger = 64802;  // and whom it does not

class PrivateBus {
 public:
  PrivateBus();
  PrivateBus(const PrivateBus&) = delete;
  PrivateBus& operator=(const PrivateBus&) = delete;
  // Ends both, and removes the folder.
  ~PrivateBus();

  // Of the user bpfgrant it is told that its number is `broker`.
  absl::Status Start(uid_t broker);
  // Ends the dbus-daemon, whose socket goes with it.
  void Stop();
  // Starts polkitd with `rules` (JavaScript), and waits until it is on the bus.
  absl::Status StartPolkit(const std::string& rules);
  void SignalPolkit(int signal) const;

  // "unix:path=..."; the same for every Start.
  std::string address() const;
  // "DBUS_SYSTEM_BUS_ADDRESS=..."
  std::string variable() const;

  // Executes busctl(1) as `uid`.
  Outcome Busctl(uid_t uid, const std::vector<std::string>& words) const;
  // Has it call a method of the Manager; `words` are signature and arguments.
  // Its standard output is JSON.
  Outcome Call(uid_t uid, const std::string& method,
               const std::vector<std::string>& words) const;

 private:
  void WriteUsers(uid_t broker);
  // The calling process, alone, knows them from then on.
  bool KnowUsers() const;

  const PrivateFolder private_{"/run/"};
  const std::filesystem::path folder_ = private_.path();
  pid_t bus_ = -1;
  pid_t polkit_ = -1;
};

}  // namespace bpfgrant::test

#endif  // TESTS_E2E_PRIVATE_BUS_H_
