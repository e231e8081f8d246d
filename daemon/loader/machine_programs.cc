#include "daemon/loader/machine_programs.h"

#include "proto/refusal/refusal.h"

namespace bpfgrant::daemon {

absl::StatusOr<std::shared_ptr<MachineProgram>> MachinePrograms::FindOrLoad(
    const Program& program, const DaemonMaps& maps) {
  std::erase_if(programs_,
                [](const auto& known) { return known.second.expired(); });
  const std::string& identity = program.entry.identity();
  if (const auto known = programs_.find(identity); known != programs_.end()) {
    return known->second.lock();
  }
  auto loaded = MachineProgram::Load(program, maps, mitigations_);
  if (!loaded.ok()) return loaded.status();
  std::shared_ptr<MachineProgram> shared = *std::move(loaded);
  programs_[identity] = shared;
  return shared;
}

absl::StatusOr<std::vector<UniqueFd>> MachinePrograms::Load(
    const Program& program, const DaemonMaps& maps, Gate gate) {
  const auto same_slot = grants_.lower_bound({gate.first, 0});
  if (same_slot != grants_.end() && same_slot->first.first == gate.first) {
    return Refuse(v1::REASON_INVALID_ARGUMENT, "that slot has a grant");
  }
  auto machine = FindOrLoad(program, maps);
  if (!machine.ok()) return machine.status();
  auto handles = (*machine)->AddMaps(gate.first, mitigations_);
  if (handles.ok()) grants_[gate].program = *std::move(machine);
  return handles;
}

absl::Status MachinePrograms::Enroll(Gate gate, UniqueFd pidfd) {
  const auto found = grants_.find(gate);
  if (found == grants_.end() || found->second.pidfd.valid()) {
    return Refuse(v1::REASON_UNKNOWN_GRANT,
                  "no such grant waits for a process");
  }
  Grant& grant = found->second;
  auto status = grant.program->Enroll(pidfd.get(), gate.first, gate.second);
  if (status.ok()) grant.pidfd = std::move(pidfd);
  return status;
}

void MachinePrograms::Dismiss(Gate gate) {
  const auto found = grants_.find(gate);
  if (found == grants_.end()) return;
  Grant& grant = found->second;
  if (grant.pidfd.valid()) grant.program->Dismiss(grant.pidfd.get());
  grant.program->RemoveMaps(gate.first);
  grants_.erase(found);
}

absl::StatusOr<std::vector<SharedProgram>> MachinePrograms::Programs() const {
  std::vector<SharedProgram> programs;
  for (const auto& [identity, known] : programs_) {
    const std::shared_ptr<MachineProgram> program = known.lock();
    if (program == nullptr) continue;
    auto ids = program->ProgramIds();
    if (!ids.ok()) return ids.status();
    programs.push_back({program->name(), *std::move(ids)});
  }
  return programs;
}

}  // namespace bpfgrant::daemon
