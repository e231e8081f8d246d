// The defences that a test can switch off, by name, to show that the attack
// they stop is real. The daemon that is installed has no way to do so: only the
// daemon that is built for tests calls Without.

#ifndef DAEMON_MITIGATIONS_H_
#define DAEMON_MITIGATIONS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace bpfgrant::daemon {

struct Mitigations {
  // A gate slot's next tenant gets another nonce, so that the last one's
  // program stays dead.
  bool gate_nonce = true;
  // Ending a grant closes its gate.
  bool gate_closes = true;
  // Map handles carry the manifest's rights and no more.
  bool narrowed_handles = true;
  // A frame from another process or user than connected ends the session.
  bool sender_check = true;
  // A session's next request waits until the last fds sent to it are read.
  bool unread_fd_limit = true;
  // A peer that says no Hello is dropped after a while.
  bool handshake_deadline = true;
  // Files are refused by owner, mode, kind, and number of links.
  bool file_safety = true;
  // The object must have the manifest's digest.
  bool digest_check = true;
  // What the policy wants signed must be, by a key that counts.
  bool signatures = true;
  // The bytes are read once, and what was hashed is what is loaded.
  bool read_once = true;
  // A program fd that can stop the machine's grace periods goes to trusted
  // callers only.
  bool dangerous_program_fd = true;
  // The broker's seccomp filter.
  bool broker_seccomp = true;
  // The broker gives up every capability and root's uid.
  bool broker_drops_privilege = true;
  // An attachment is locked with SO_LOCK_FILTER.
  bool lock_filter = true;
  // What was handed out once is never handed out again.
  bool instances_not_reused = true;
  // A user's sessions and grants are counted.
  bool quotas = true;
  // A grant counts until the kernel has nothing of it any more.
  bool quota_until_gone = true;
  // A loop's ring is restricted to what the manifest lists before the loop is
  // attached.
  bool loop_restrictions = true;
  // A loop stops where the task has no io_uring of its own.
  bool loop_task_check = true;
  // A loop stops after so many steps.
  bool loop_step_budget = true;
  // Links are made and removed one at a time, and who holds that up is killed.
  bool loop_link_turns = true;
  // A tracing program no longer serves a process that executes another program.
  bool exec_dismisses = true;
  // Rotate answers when no run can have the old maps any more.
  bool rotate_waits = true;
  // For a loop's step, which can sleep, it does not trust a grace period.
  bool rotate_counts_steps = true;
  // One user's records in the audit trail are limited.
  bool audit_allowance = true;
  // A unit is the system manager's, and not whatever has its name.
  bool unit_is_system_managers = true;
  // A unit counts only where none but root can have made its cgroup.
  bool cgroup_owner_check = true;
  // Where a process runs is read of the process, and not of whoever has its
  // number in /proc.
  bool location_by_pidfd = true;
  // Who may have an id that has no number here is nobody that can be named.
  bool unmapped_ids_refused = true;
  // An executable's path counts only if it leads the daemon to the same file.
  bool executable_path_check = true;
  // And its digest only where it cannot change while it is executed.
  bool executable_filesystem = true;
  // What a process executes is read for each request, and not once.
  bool executable_each_time = true;
  // The administrator's limits bind whatever manifests approve.
  bool admission_limits = true;
  // Values of parameters must be in the manifest's range, and in the rule's.
  bool parameter_ranges = true;
  bool parameter_narrowing = true;
  // An fd that is a parameter must be of the manifest's kind.
  bool parameter_files = true;
  // Loads for values of parameters are limited for each user.
  bool value_load_rate = true;
  // A user's values make room among that user's own.
  bool values_by_user = true;
  // What is not everybody's on the bus, polkit has to allow.
  bool bus_authorization = true;
  // One user's calls over the bus are counted, and the last places are root's.
  bool bus_calls_per_user = true;
  // Signals of grants that begin and end are limited.
  bool bus_signal_rate = true;
  // A second daemon on the same runtime directory is refused.
  bool runtime_directory_lock = true;

  // The names of those that are off.
  std::vector<std::string> Off() const;
  // Switches off what `names` lists. kInvalidArgument for an unknown name;
  // nothing is switched off then.
  absl::Status Without(absl::Span<const std::string> names);
};

}  // namespace bpfgrant::daemon

#endif  // DAEMON_MITIGATIONS_H_
