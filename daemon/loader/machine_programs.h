// The tracing programs that are loaded, and which grant has what of them.
//
// It must not decide who may have one.

#ifndef DAEMON_LOADER_MACHINE_PROGRAMS_H_
#define DAEMON_LOADER_MACHINE_PROGRAMS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/fd_store.h"
#include "daemon/loader/admission.h"
#include "daemon/loader/instance.h"
#include "daemon/loader/machine_program.h"
#include "daemon/loader/run_totals.h"
#include "daemon/mitigations.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::daemon {

class MachinePrograms {
 public:
  MachinePrograms(const Mitigations& mitigations, FdStore& store)
      : mitigations_(mitigations), store_(store) {}

  // Slot and nonce: what a grant is known by. A slot comes back, the pair does
  // not.
  using Gate = std::pair<uint32_t, uint64_t>;

  // Takes up what an earlier loader had loaded, out of `found`: the grants
  // whose processes are there, until Dismiss.
  void Restore(StoredFds& found);

  // Makes a grant's maps, and loads `program` if no other grant had it loaded.
  // Returns what the client gets. REASON_LOAD_FAILED: the kernel refused.
  // REASON_INVALID_ARGUMENT: another grant is known by that slot.
  absl::StatusOr<std::vector<UniqueFd>> Load(const Program& program,
                                             const DaemonMaps& maps, Gate gate);
  // Has the grant's program serve the process of `pidfd`. Once for a grant.
  // As MachineProgram::Enroll; REASON_UNKNOWN_GRANT: none waits for a process.
  absl::Status Enroll(Gate gate, UniqueFd pidfd);
  // Of all there are.
  std::vector<Gate> Gates() const;

  // The end of a grant, whose gate is closed by then. With the last one its
  // program goes.
  void Dismiss(Gate gate);

  // The programs that are loaded. kInternal: the kernel did not say.
  absl::StatusOr<std::vector<SharedProgram>> Programs() const;

 private:
  struct Grant {
    std::shared_ptr<MachineProgram> program;
    UniqueFd pidfd;  // once it is enrolled
  };

  absl::StatusOr<std::shared_ptr<MachineProgram>> FindOrLoad(
      const Program& program, const DaemonMaps& maps);

  Mitigations mitigations_;
  FdStore& store_;
  std::map<Gate, Grant> grants_;
  std::map<std::string, std::weak_ptr<MachineProgram>> programs_;  // identity
};

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_MACHINE_PROGRAMS_H_
