// A tracing program: loaded once, attached once for the whole machine while it
// serves a process, with maps for each grant.

#ifndef DAEMON_LOADER_MACHINE_PROGRAM_H_
#define DAEMON_LOADER_MACHINE_PROGRAM_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/fd_store.h"
#include "daemon/loader/admission.h"
#include "daemon/loader/instance.h"
#include "daemon/loader/map_shape.h"
#include "daemon/loader/object.h"
#include "daemon/mitigations.h"
#include "proto/wire/unique_fd.h"

struct bpf_link;

namespace bpfgrant::daemon {

class MachineProgram {
 public:
  // Loads `program`, which must be available and a tracing one.
  // REASON_LOAD_FAILED, REASON_BUSY: the kernel refused.
  static absl::StatusOr<std::unique_ptr<MachineProgram>> Load(
      const Program& program, const DaemonMaps& maps,
      const Mitigations& mitigations, FdStore& store);
  // What is in `store` of one that an earlier loader had loaded, which served
  // `processes` processes: it goes on serving them, and no others. nullptr:
  // what belongs to it is not there.
  static std::unique_ptr<MachineProgram> Restore(uint64_t tag, StoredFds& found,
                                                 size_t processes,
                                                 FdStore& store);
  // Takes the program off its tracepoints and out of the kernel. Maps that
  // clients hold remain, and nobody writes them any more.
  ~MachineProgram();
  // What it is known by in the store, with what it has there.
  uint64_t tag() const { return tag_; }
  MachineProgram(const MachineProgram&) = delete;
  MachineProgram& operator=(const MachineProgram&) = delete;

  // Makes the maps of the grant with gate slot `slot`, and returns those that
  // its client gets, in the order of the snapshot's handles, narrowed to the
  // manifest's rights. Waits for a grace period.
  // REASON_LOAD_FAILED, REASON_BUSY: the kernel refused.
  absl::StatusOr<std::vector<UniqueFd>> AddMaps(uint32_t slot,
                                                const Mitigations& mitigations);
  // Forgets them. Waits likewise.
  void RemoveMaps(uint32_t slot);

  // Serves the process of `pidfd` with the maps of `slot` while that slot of
  // the gate map holds `nonce`, until Dismiss, or until the process ends or
  // executes another program.
  // REASON_PROCESS_ENROLLED: it is served already. REASON_LOAD_FAILED,
  // REASON_BUSY: the kernel refused.
  absl::Status Enroll(int pidfd, uint32_t slot, uint64_t nonce);
  // Once for each Enroll that was successful.
  void Dismiss(int pidfd);

  // In the catalog.
  const std::string& name() const { return name_; }
  // All its programs, as the kernel calls them. kInternal: it did not say.
  absl::StatusOr<std::vector<uint32_t>> ProgramIds() const;

 private:
  // What each grant has one of.
  struct GrantMap {
    std::string name;
    int array = -1;  // the map of all of them, owned by `object_`
    std::optional<MapShape> shape;
    bool offered = false;
    v1::Rights rights = v1::RIGHTS_UNSPECIFIED;
  };

  MachineProgram(std::string name, BpfObject object, FdStore& store,
                 uint64_t tag)
      : name_(std::move(name)),
        object_(std::move(object)),
        store_(store),
        tag_(tag) {}

  // What the parts are called in the store.
  enum Part : uint64_t { kEnrolled, kArray, kLink };
  std::string StoredAs(Part part, size_t number) const;
  void Store(Part part, size_t number, int fd);

  void FindGrantMaps(const v1::Manifest& manifest);
  absl::Status Attach();
  void Detach();

  const std::string name_;
  BpfObject object_;
  int enrolled_ = -1;  // owned by `object_`
  std::vector<GrantMap> grant_maps_;
  std::vector<bpf_link*> links_;
  size_t processes_ = 0;
  FdStore& store_;
  const uint64_t tag_;
  // Of one that was restored, instead of `object_` and `links_`.
  std::vector<UniqueFd> restored_maps_, restored_links_;
};

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_MACHINE_PROGRAM_H_
