#include "daemon/loader/object_check.h"

#include <bpf/libbpf.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "daemon/loader/loop_manifest.h"
#include "daemon/loader/loop_object.h"
#include "daemon/loader/object.h"
#include "daemon/loader/parameter_object.h"
#include "daemon/loader/swap.h"
#include "daemon/loader/tracing_manifest.h"
#include "daemon/loader/tracing_object.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant::daemon {
namespace {

std::string MapTypeName(bpf_map_type type) {
  const char* name = libbpf_bpf_map_type_str(type);
  return name != nullptr ? name : absl::StrCat("type ", type);
}

absl::Status CheckProgram(const bpf_object* object, const Manifest& manifest) {
  const TextFile& text = manifest.text();
  const v1::Manifest::Program& declared = manifest.message().program();
  const auto refuse = [&](std::string_view field, absl::string_view what) {
    return manifest.RefuseAt(field == "function"
                                 ? manifest.At(field)
                                 : text.Where("program", -1, field),
                             v1::REASON_OBJECT_MISMATCH, what);
  };
  const bpf_program* found = FindProgram(object, manifest.message());
  if (found == nullptr) {
    return refuse("function", absl::StrCat("the object has no program '",
                                           declared.function(), "'"));
  }
  const bpf_prog_type type = bpf_program__type(found);
  if (static_cast<uint32_t>(type) != KernelType(declared.type())) {
    const char* name = libbpf_bpf_prog_type_str(type);
    return refuse("type", absl::StrCat("the object's program is of type ",
                                       name != nullptr ? name : "unknown"));
  }
  return absl::OkStatus();
}

absl::Status CheckGate(const bpf_map* gate, const Manifest& manifest) {
  if (gate == nullptr) {
    return manifest.RefuseAt(
        manifest.At("object"), v1::REASON_GATE_MISSING,
        absl::StrCat("the object has no map '", kGateMap, "'"));
  }
  if (bpf_map__type(gate) != BPF_MAP_TYPE_ARRAY ||
      bpf_map__key_size(gate) != sizeof(uint32_t) ||
      bpf_map__value_size(gate) != sizeof(bpfgrant_gate_entry) ||
      bpf_map__max_entries(gate) != kGateSlots ||
      bpf_map__map_flags(gate) != BPF_F_MMAPABLE) {
    return manifest.RefuseAt(
        manifest.At("object"), v1::REASON_OBJECT_MISMATCH,
        absl::StrCat("the object's map '", kGateMap, "' is not an array of ",
                     kGateSlots,
                     " struct bpfgrant_gate_entry with BPF_F_MMAPABLE"));
  }
  return absl::OkStatus();
}

// Whether one map of the object is the one that the manifest names.
absl::Status CheckMap(bpf_map* map, const Manifest& manifest, int index) {
  const v1::Manifest::Map& declared = manifest.message().map(index);
  const TextFile& text = manifest.text();
  if (IsTracing(manifest.message())) {
    if (auto status = CheckMapOfEachGrant(map, manifest, index); !status.ok()) {
      return status;
    }
    map = bpf_map__inner_map(map);
  }
  if (declared.swappable()) {
    if (auto status = CheckSwappable(map, manifest, index); !status.ok()) {
      return status;
    }
  } else if (KernelMapType(declared.kind()) != bpf_map__type(map)) {
    return manifest.RefuseAt(
        text.Where("map", index, "kind"), v1::REASON_OBJECT_MISMATCH,
        absl::StrCat("the object's map '", declared.name(), "' is of type ",
                     MapTypeName(bpf_map__type(map))));
  }
  // libbpf would pin it, or take over whatever is pinned under its name.
  if (bpf_map__pin_path(map) != nullptr) {
    return manifest.RefuseAt(text.Where("map", index, "name"),
                             v1::REASON_OBJECT_MISMATCH,
                             absl::StrCat("the object's map '", declared.name(),
                                          "' asks to be pinned"));
  }
  return absl::OkStatus();
}

absl::Status CheckMaps(const bpf_object* object, const Manifest& manifest) {
  const v1::Manifest& message = manifest.message();
  std::map<std::string, int> undecided;
  for (int i = 0; i < message.map_size(); ++i) {
    if (message.map(i).name() == kGateMap ||
        message.map(i).name() == kEnrolledMap ||
        IsEntryMap(message.map(i).name())) {
      return manifest.RefuseAt(
          manifest.text().Where("map", i, "name"), v1::REASON_OBJECT_MISMATCH,
          absl::StrCat(message.map(i).name(),
                       " is the daemon's own and is not named in a manifest"));
    }
    undecided[message.map(i).name()] = i;
  }
  bpf_map* map;
  bpf_object__for_each_map(map, object) {
    // Sections of globals: .rodata, .data, .bss, .kconfig.
    if (bpf_map__is_internal(map)) continue;
    const std::string name = bpf_map__name(map);
    if (name == kGateMap || (IsLoop(message) && IsEntryMap(name)) ||
        (IsTracing(message) && name == kEnrolledMap)) {
      continue;
    }
    const auto found = undecided.find(name);
    if (found == undecided.end()) {
      return manifest.RefuseAt(
          manifest.text().Where("map"), v1::REASON_OBJECT_MISMATCH,
          absl::StrCat("the object has a map '", Printable(name),
                       "' that the manifest does not name"));
    }
    if (auto status = CheckMap(map, manifest, found->second); !status.ok()) {
      return status;
    }
    undecided.erase(found);
  }
  for (const auto& [name, index] : undecided) {
    return manifest.RefuseAt(
        manifest.text().Where("map", index, "name"), v1::REASON_OBJECT_MISMATCH,
        absl::StrCat("the object has no map '", name, "'"));
  }
  return absl::OkStatus();
}

// What else there is beside the programs.
absl::Status CheckParts(const bpf_object* object, const Manifest& manifest) {
  auto status = CheckMaps(object, manifest);
  return status.ok() ? CheckParameterPlaces(object, manifest) : status;
}

}  // namespace

absl::Status CheckObject(const bpf_object* object, const Manifest& manifest) {
  const Place place = manifest.At("object");
  if (bpf_object__btf(object) == nullptr) {
    return manifest.RefuseAt(place, v1::REASON_OBJECT_MISMATCH,
                             "the object has no BTF");
  }
  if (auto status = IsTracing(manifest.message())
                        ? CheckHookedPrograms(object, manifest)
                        : CheckProgram(object, manifest);
      !status.ok()) {
    return status;
  }
  if (IsUnrevocable(manifest.message())) {
    if (GateOf(object) == nullptr) return CheckParts(object, manifest);
    return manifest.RefuseAt(
        manifest.text().Where("program", -1, "on_revoke"),
        v1::REASON_OBJECT_MISMATCH,
        "the object has a gate: on_revoke is PASS or DROP, not NOTHING");
  }
  if (auto status = CheckGate(GateOf(object), manifest); !status.ok()) {
    return status;
  }
  if (const char* name = MissingGateConstant(object)) {
    return manifest.RefuseAt(
        place, v1::REASON_GATE_MISSING,
        absl::StrCat("the object has no constant '", name, "'"));
  }
  return CheckParts(object, manifest);
}

}  // namespace bpfgrant::daemon
