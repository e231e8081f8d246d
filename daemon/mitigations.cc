#include "daemon/mitigations.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"

namespace bpfgrant::daemon {
namespace {

struct Row {
  std::string_view name;
  bool Mitigations::*member;
};

// A name is the member's.
#define BPFGRANT_MITIGATION(member) \
  { #member, &Mitigations::member }
constexpr Row kTable[] = {
    BPFGRANT_MITIGATION(gate_nonce),
    BPFGRANT_MITIGATION(gate_closes),
    BPFGRANT_MITIGATION(narrowed_handles),
    BPFGRANT_MITIGATION(sender_check),
    BPFGRANT_MITIGATION(unread_fd_limit),
    BPFGRANT_MITIGATION(handshake_deadline),
    BPFGRANT_MITIGATION(file_safety),
    BPFGRANT_MITIGATION(digest_check),
    BPFGRANT_MITIGATION(signatures),
    BPFGRANT_MITIGATION(read_once),
    BPFGRANT_MITIGATION(dangerous_program_fd),
    BPFGRANT_MITIGATION(broker_seccomp),
    BPFGRANT_MITIGATION(broker_drops_privilege),
    BPFGRANT_MITIGATION(lock_filter),
    BPFGRANT_MITIGATION(instances_not_reused),
    BPFGRANT_MITIGATION(quotas),
    BPFGRANT_MITIGATION(quota_until_gone),
    BPFGRANT_MITIGATION(loop_restrictions),
    BPFGRANT_MITIGATION(loop_task_check),
    BPFGRANT_MITIGATION(loop_step_budget),
    BPFGRANT_MITIGATION(loop_link_turns),
    BPFGRANT_MITIGATION(exec_dismisses),
    BPFGRANT_MITIGATION(rotate_waits),
    BPFGRANT_MITIGATION(rotate_counts_steps),
    BPFGRANT_MITIGATION(audit_allowance),
    BPFGRANT_MITIGATION(unit_is_system_managers),
    BPFGRANT_MITIGATION(cgroup_owner_check),
    BPFGRANT_MITIGATION(location_by_pidfd),
    BPFGRANT_MITIGATION(unmapped_ids_refused),
    BPFGRANT_MITIGATION(executable_path_check),
    BPFGRANT_MITIGATION(executable_filesystem),
    BPFGRANT_MITIGATION(executable_each_time),
    BPFGRANT_MITIGATION(admission_limits),
    BPFGRANT_MITIGATION(parameter_ranges),
    BPFGRANT_MITIGATION(parameter_narrowing),
    BPFGRANT_MITIGATION(parameter_files),
    BPFGRANT_MITIGATION(value_load_rate),
    BPFGRANT_MITIGATION(values_by_user),
    BPFGRANT_MITIGATION(bus_authorization),
    BPFGRANT_MITIGATION(bus_calls_per_user),
    BPFGRANT_MITIGATION(bus_signal_rate),
    BPFGRANT_MITIGATION(runtime_directory_lock),
};
#undef BPFGRANT_MITIGATION

static_assert(std::size(kTable) * sizeof(bool) == sizeof(Mitigations),
              "every member of Mitigations has a row, and is a bool");

}  // namespace

std::vector<std::string> Mitigations::Off() const {
  std::vector<std::string> names;
  for (const Row& row : kTable) {
    if (!(this->*row.member)) names.emplace_back(row.name);
  }
  return names;
}

absl::Status Mitigations::Without(absl::Span<const std::string> names) {
  Mitigations changed = *this;
  for (const std::string& name : names) {
    const auto* row =
        std::find_if(std::begin(kTable), std::end(kTable),
                     [&](const Row& each) { return each.name == name; });
    if (row == std::end(kTable)) {
      return absl::InvalidArgumentError(
          absl::StrCat("there is no mitigation '", name, "'"));
    }
    changed.*(row->member) = false;
  }
  *this = changed;
  return absl::OkStatus();
}

}  // namespace bpfgrant::daemon
