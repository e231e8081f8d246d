#include "daemon/loader/machine_programs.h"

#include <utility>
#include <vector>

#include "daemon/process.h"
#include "daemon/stored_names.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::daemon {
namespace {

// The process that a grant of that program serves.
std::string StoredAs(MachinePrograms::Gate gate,
                     const MachineProgram& program) {
  return StoredName(kStoredProcess, {gate.first, gate.second, program.tag()});
}

}  // namespace

void MachinePrograms::Restore(StoredFds& found) {
  struct Process {
    Gate gate;
    UniqueFd pidfd;
  };
  std::map<uint64_t, std::vector<Process>> by_tag;
  for (auto each = found.begin(); each != found.end();) {
    const auto numbers = NumbersOf(each->first, kStoredProcess);
    if (!numbers.has_value() || numbers->size() != 3) {
      ++each;
      continue;
    }
    by_tag[(*numbers)[2]].push_back(
        {{static_cast<uint32_t>((*numbers)[0]), (*numbers)[1]},
         std::move(each->second)});
    each = found.erase(each);
  }
  for (auto& [tag, processes] : by_tag) {
    const std::shared_ptr<MachineProgram> program =
        MachineProgram::Restore(tag, found, processes.size(), store_);
    for (Process& process : processes) {
      if (program == nullptr) {
        store_.Remove(StoredName(
            kStoredProcess, {process.gate.first, process.gate.second, tag}));
      } else {
        grants_[process.gate] = {program, std::move(process.pidfd)};
      }
    }
  }
}

absl::StatusOr<std::shared_ptr<MachineProgram>> MachinePrograms::FindOrLoad(
    const Program& program, const DaemonMaps& maps) {
  std::erase_if(programs_,
                [](const auto& known) { return known.second.expired(); });
  const std::string& identity = program.entry.identity();
  if (const auto known = programs_.find(identity); known != programs_.end()) {
    return known->second.lock();
  }
  auto loaded = MachineProgram::Load(program, maps, mitigations_, store_);
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
  if (!status.ok()) return status;
  grant.pidfd = std::move(pidfd);
  // Not the session's own: a service manager keeps each file once.
  const UniqueFd stored = OpenAgain(grant.pidfd.get());
  const int process = stored.get();
  store_.Put(StoredAs(gate, *grant.program), absl::MakeSpan(&process, 1));
  return status;
}

std::vector<MachinePrograms::Gate> MachinePrograms::Gates() const {
  std::vector<Gate> gates;
  for (const auto& [gate, grant] : grants_) gates.push_back(gate);
  return gates;
}

void MachinePrograms::Dismiss(Gate gate) {
  const auto found = grants_.find(gate);
  if (found == grants_.end()) return;
  Grant& grant = found->second;
  if (grant.pidfd.valid()) {
    grant.program->Dismiss(grant.pidfd.get());
    store_.Remove(StoredAs(gate, *grant.program));
  }
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
