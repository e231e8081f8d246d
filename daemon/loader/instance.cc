#include "daemon/loader/instance.h"

#include <linux/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "daemon/loader/loop_manifest.h"
#include "daemon/loader/loop_object.h"
#include "daemon/loader/object.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant::daemon {
namespace {

absl::Status LoadFailed(const Program& program, int error,
                        absl::string_view what) {
  return Refuse(
      v1::REASON_LOAD_FAILED,
      absl::StrCat("loading '", program.name(), "': ", std::strerror(error),
                   what.empty() ? "" : "; ", what));
}

// BPF_F_RDONLY and BPF_F_WRONLY are rights of the fd that BPF_MAP_CREATE
// returns, not of the map: map_create() derives that fd's mode from them
// (bpf_get_file_flag) and takes them off the map's own flags
// (bpf_map_flags_retain_permanent, kernel/bpf/syscall.c). Programs reach the
// map by reference, not through the fd, so they keep reading and writing.
uint32_t FlagsOf(v1::Rights rights) {
  switch (rights) {
    case v1::RIGHTS_READ:
      return BPF_F_RDONLY;
    case v1::RIGHTS_WRITE:
      return BPF_F_WRONLY;
    default:
      return 0;
  }
}

int ModeOf(v1::Rights rights) {
  switch (rights) {
    case v1::RIGHTS_READ:
      return O_RDONLY;
    case v1::RIGHTS_WRITE:
      return O_WRONLY;
    default:
      return O_RDWR;
  }
}

absl::Status NarrowHandles(const bpf_object* object,
                           const v1::Manifest& manifest) {
  for (const OfferedMap& offered : OfferedMaps(manifest)) {
    bpf_map* map = MapOf(object, offered.name);
    const uint32_t flags = bpf_map__map_flags(map) | FlagsOf(offered.rights);
    if (bpf_map__set_map_flags(map, flags) < 0) {
      return absl::InternalError(
          absl::StrCat("narrowing a map: ", std::strerror(errno)));
    }
  }
  return absl::OkStatus();
}

// The object closes its own; the duplicates share rights with them.
absl::StatusOr<UniqueFd> Duplicate(int fd) {
  UniqueFd copy(fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) {
    return Refuse(v1::REASON_LOAD_FAILED,
                  absl::StrCat("keeping an fd: ", std::strerror(errno)));
  }
  return copy;
}

absl::StatusOr<Instance> Collect(const bpf_object* object,
                                 const v1::Manifest& manifest, bool narrowed) {
  Instance instance;
  // A loop's structure keeps its program.
  auto program =
      Duplicate(IsLoop(manifest) ? bpf_map__fd(MapOf(object, kLoopStructureMap))
                                 : bpf_program__fd(ProgramOf(object)));
  if (!program.ok()) return program.status();
  instance.program = *std::move(program);
  for (const OfferedMap& offered : OfferedMaps(manifest)) {
    auto handle = Duplicate(bpf_map__fd(MapOf(object, offered.name)));
    if (!handle.ok()) return handle.status();
    // The comment above is about kernels seen; this one has to show it.
    if (narrowed &&
        (fcntl(handle->get(), F_GETFL) & O_ACCMODE) != ModeOf(offered.rights)) {
      return absl::InternalError(absl::StrCat(
          "the kernel did not narrow handle '", offered.handle, "'"));
    }
    instance.handles.push_back(*std::move(handle));
  }
  return instance;
}

}  // namespace

absl::StatusOr<Instance> LoadInstance(const Program& program,
                                      const DaemonMaps& maps, uint32_t slot,
                                      uint64_t nonce,
                                      const Mitigations& mitigations) {
  const v1::Manifest& manifest = program.manifest->message();
  std::string_view bytes = program.loadable();
  absl::StatusOr<SealedBytes> again;
  if (!mitigations.read_once && program.folder.has_value() &&
      !IsLoop(manifest)) {
    again = program.folder->Read(manifest.object(), kMaxObjectBytes);
    if (!again.ok()) return again.status();
    bytes = again->view();
  }
  auto object = OpenObject(bytes, manifest.name());
  if (!object.ok()) return object.status();
  if (auto status =
          SetGate(object->get(), slot, nonce, manifest.program().on_revoke());
      !status.ok()) {
    return status;
  }
  if (IsLoop(manifest)) {
    if (auto status = SetLoopConstants(object->get(), manifest, mitigations);
        !status.ok()) {
      return status;
    }
  }
  if (mitigations.narrowed_handles) {
    if (auto status = NarrowHandles(object->get(), manifest); !status.ok()) {
      return status;
    }
  }
  const LibbpfLog log;
  bpf_map* gate_map = GateOf(object->get());
  if (gate_map == nullptr || bpf_map__reuse_fd(gate_map, maps.gate) < 0) {
    return LoadFailed(program, errno, "the gate cannot be put in place");
  }
  if (bpf_map* trace = MapOf(object->get(), kLoopTraceMap);
      trace != nullptr && bpf_map__reuse_fd(trace, maps.trace) < 0) {
    return LoadFailed(program, errno, "the trace cannot be put in place");
  }
  if (bpf_object__load(object->get()) < 0) {
    const int error = errno;
    return LoadFailed(program, error, log.LastLine());
  }
  if (IsLoop(manifest)) {
    if (auto status = PrepareStructure(object->get()); !status.ok()) {
      return status;
    }
  }
  return Collect(object->get(), manifest, mitigations.narrowed_handles);
}

}  // namespace bpfgrant::daemon
