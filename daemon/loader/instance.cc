#include "daemon/loader/instance.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "daemon/loader/loop_manifest.h"
#include "daemon/loader/loop_object.h"
#include "daemon/loader/manifest.h"
#include "daemon/loader/object.h"
#include "daemon/loader/parameter_object.h"
#include "daemon/loader/rights.h"
#include "daemon/loader/swap.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant::daemon {
namespace {

absl::Status LoadFailed(const Program& program, int error,
                        absl::string_view what) {
  return Refuse(
      MayPass(error) ? v1::REASON_BUSY : v1::REASON_LOAD_FAILED,
      absl::StrCat("loading '", program.name(), "': ", std::strerror(error),
                   what.empty() ? "" : "; ", what));
}

absl::Status NarrowHandles(const bpf_object* object,
                           const v1::Manifest& manifest) {
  for (const OfferedMap& offered : OfferedMaps(manifest)) {
    if (offered.copy >= 0) continue;
    bpf_map* map = MapOf(object, offered.name);
    const uint32_t flags =
        bpf_map__map_flags(map) | CreateFlagsOf(offered.rights);
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
    return Refuse(v1::REASON_BUSY,
                  absl::StrCat("keeping an fd: ", std::strerror(errno)));
  }
  return copy;
}

// Whether `fd` is a map as `map` would be, made for an earlier instance. What
// the broker passes is not taken for granted: the daemon's own maps have
// shapes, too.
bool IsSessionMap(const UniqueFd& fd, const bpf_map* map,
                  const DaemonMaps& maps) {
  bpf_map_info info{}, gate{};
  uint32_t size = sizeof(info);
  if (bpf_map_get_info_by_fd(fd.get(), &info, &size) < 0) return false;
  size = sizeof(gate);
  if (bpf_map_get_info_by_fd(maps.gate, &gate, &size) < 0) return false;
  return info.id != gate.id && info.type == bpf_map__type(map) &&
         info.key_size == bpf_map__key_size(map) &&
         info.value_size == bpf_map__value_size(map) &&
         info.max_entries == bpf_map__max_entries(map);
}

absl::Status ReuseSessionMaps(const bpf_object* object, const Program& program,
                              const DaemonMaps& maps,
                              absl::Span<const UniqueFd> session_maps) {
  if (session_maps.empty()) return absl::OkStatus();
  const std::vector<std::string> names =
      SessionMaps(program.manifest->message());
  if (names.size() != session_maps.size()) {
    return Refuse(v1::REASON_INVALID_ARGUMENT, "not as many maps as it shares");
  }
  for (size_t i = 0; i < names.size(); ++i) {
    bpf_map* map = MapOf(object, names[i]);
    if (!IsSessionMap(session_maps[i], map, maps)) {
      return Refuse(v1::REASON_INVALID_ARGUMENT,
                    absl::StrCat("that is not the map '", names[i], "'"));
    }
    if (bpf_map__reuse_fd(map, session_maps[i].get()) < 0) {
      return LoadFailed(program, errno, "a session's map is not taken");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> HandleOf(const bpf_object* object,
                                  const OfferedMap& offered, Swaps& swaps) {
  if (offered.copy >= 0) return swaps.Take(offered.name, offered.copy);
  return Duplicate(bpf_map__fd(MapOf(object, offered.name)));
}

absl::Status NoId(int error) {
  return absl::InternalError(
      absl::StrCat("asking for an object's id: ", std::strerror(error)));
}

absl::Status AddProgramId(const bpf_program* program, ObjectIds& ids) {
  bpf_prog_info info{};
  uint32_t size = sizeof(info);
  if (bpf_prog_get_info_by_fd(bpf_program__fd(program), &info, &size) < 0) {
    return NoId(errno);
  }
  ids.push_back({true, info.id, info.name});
  return absl::OkStatus();
}

// What is the daemon's own is not among them, nor are maps that an earlier load
// made for the session.
absl::Status CollectIds(const bpf_object* object, const v1::Manifest& manifest,
                        bool made_session_maps, Instance& instance) {
  if (auto status = AddProgramId(ProgramOf(object), instance.objects);
      !status.ok()) {
    return status;
  }
  const std::vector<std::string> shared = SessionMaps(manifest);
  const bpf_map* map = nullptr;
  bpf_object__for_each_map(map, object) {
    if (map == GateOf(object) || map == MapOf(object, kLoopTraceMap) ||
        map == MapOf(object, kLoopStepsMap) || !bpf_map__autocreate(map)) {
      continue;
    }
    const bool is_shared = std::find(shared.begin(), shared.end(),
                                     bpf_map__name(map)) != shared.end();
    if (is_shared && !made_session_maps) continue;
    auto status =
        AddMapId(bpf_map__fd(map),
                 is_shared ? instance.session_objects : instance.objects);
    if (!status.ok()) return status;
  }
  // The two of a swappable map are none of the object's.
  size_t handle = 0;
  for (const OfferedMap& offered : OfferedMaps(manifest)) {
    const UniqueFd& fd = instance.handles[handle++];
    if (offered.copy < 0) continue;
    if (auto status = AddMapId(fd.get(), instance.objects); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Instance> Collect(const bpf_object* object,
                                 const v1::Manifest& manifest, Swaps& swaps,
                                 bool narrowed) {
  Instance instance;
  // A loop's structure keeps its program.
  auto program =
      Duplicate(IsLoop(manifest) ? bpf_map__fd(MapOf(object, kLoopStructureMap))
                                 : bpf_program__fd(ProgramOf(object)));
  if (!program.ok()) return program.status();
  instance.program = *std::move(program);
  for (const OfferedMap& offered : OfferedMaps(manifest)) {
    auto handle = HandleOf(object, offered, swaps);
    if (!handle.ok()) return handle.status();
    if (narrowed && !HasRights(handle->get(), offered.rights)) {
      return absl::InternalError(absl::StrCat(
          "the kernel did not narrow handle '", offered.handle, "'"));
    }
    instance.handles.push_back(*std::move(handle));
  }
  for (const v1::Parameter& parameter : manifest.parameter()) {
    if (!parameter.has_entry()) continue;
    auto map = Duplicate(bpf_map__fd(MapOf(object, parameter.entry().map())));
    if (!map.ok()) return map.status();
    instance.entry_maps.push_back(*std::move(map));
  }
  for (const std::string& name : SessionMaps(manifest)) {
    auto map = Duplicate(bpf_map__fd(MapOf(object, name)));
    if (!map.ok()) return map.status();
    instance.session_maps.push_back(*std::move(map));
  }
  return instance;
}

}  // namespace

absl::Status AddMapId(int map, ObjectIds& ids) {
  bpf_map_info info{};
  uint32_t size = sizeof(info);
  if (bpf_map_get_info_by_fd(map, &info, &size) < 0) {
    return NoId(errno);
  }
  ids.push_back({false, info.id, info.name});
  return absl::OkStatus();
}

bool AreAlike(int map, int other) {
  bpf_map_info infos[2] = {};
  const int fds[2] = {map, other};
  for (int i = 0; i < 2; ++i) {
    uint32_t size = sizeof(infos[i]);
    if (bpf_map_get_info_by_fd(fds[i], &infos[i], &size) < 0) return false;
  }
  const auto shape = [](const bpf_map_info& info) {
    return std::tuple(info.type, info.key_size, info.value_size,
                      info.max_entries, info.map_flags,
                      std::string_view(info.name));
  };
  return shape(infos[0]) == shape(infos[1]);
}

absl::StatusOr<Instance> LoadInstance(
    const Program& program, const DaemonMaps& maps, uint32_t slot,
    uint64_t nonce, const Mitigations& mitigations,
    absl::Span<const UniqueFd> session_maps,
    absl::Span<const v1::ParameterValue> parameters) {
  const v1::Manifest& manifest = program.manifest->message();
  std::string_view bytes = program.loadable();
  absl::StatusOr<SealedBytes> again;
  if (!mitigations.read_once && program.folder.has_value() &&
      !IsLoop(manifest)) {
    again = program.folder->Read(manifest.object(), kMaxObjectBytes);
    if (!again.ok()) return again.status();
    bytes = again->view();
  }
  auto object = OpenProgram(bytes, manifest);
  if (!object.ok()) return object.status();
  if (!IsUnrevocable(manifest)) {
    if (auto status =
            SetGate(object->get(), slot, nonce, manifest.program().on_revoke());
        !status.ok()) {
      return status;
    }
  }
  if (auto status = SetParameters(object->get(), manifest, parameters,
                                  mitigations.parameter_ranges);
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
  if (auto status =
          ReuseSessionMaps(object->get(), program, maps, session_maps);
      !status.ok()) {
    return status;
  }
  bpf_map* gate_map = GateOf(object->get());
  if (gate_map == nullptr ? !IsUnrevocable(manifest)
                          : bpf_map__reuse_fd(gate_map, maps.gate) < 0) {
    return LoadFailed(program, errno, "the gate cannot be put in place");
  }
  for (const auto& [name, fd] : {std::pair(kLoopTraceMap, maps.trace),
                                 std::pair(kLoopStepsMap, maps.steps)}) {
    bpf_map* map = MapOf(object->get(), name);
    if (map != nullptr && bpf_map__reuse_fd(map, fd) < 0) {
      return LoadFailed(program, errno,
                        absl::StrCat(name, " cannot be put in place"));
    }
  }
  Swaps swaps(object->get(), manifest, mitigations.narrowed_handles);
  if (bpf_object__load(object->get()) < 0) {
    const int error = errno;
    return LoadFailed(program, error, log.LastLine());
  }
  if (auto status = swaps.Fill(object->get()); !status.ok()) return status;
  if (IsLoop(manifest)) {
    if (auto status = PrepareStructure(object->get()); !status.ok()) {
      return status;
    }
  }
  auto instance =
      Collect(object->get(), manifest, swaps, mitigations.narrowed_handles);
  if (!instance.ok()) return instance;
  if (!session_maps.empty()) instance->session_maps.clear();
  if (auto status =
          CollectIds(object->get(), manifest, session_maps.empty(), *instance);
      !status.ok()) {
    return status;
  }
  return instance;
}

}  // namespace bpfgrant::daemon
