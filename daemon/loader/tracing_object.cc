#include "daemon/loader/tracing_object.h"

#include <bpf/libbpf.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "bpf-programs/include/bpfgrant/enrolled.h"
#include "daemon/loader/object.h"
#include "proto/wire/limits.h"

namespace bpfgrant::daemon {
namespace {

absl::Status CheckHookedProgram(const bpf_program* program,
                                const Manifest& manifest) {
  const auto& hooks = manifest.message().hook();
  const std::string name = bpf_program__name(program);
  const auto hook = std::find_if(
      hooks.begin(), hooks.end(),
      [&](const v1::Manifest::Hook& each) { return each.function() == name; });
  const auto refuse = [&](absl::string_view what) {
    return manifest.RefuseAt(manifest.At("hook"), v1::REASON_OBJECT_MISMATCH,
                             what);
  };
  if (hook == hooks.end()) {
    return refuse(absl::StrCat("the object has a program '", Printable(name),
                               "' that the manifest does not hook"));
  }
  if (bpf_program__type(program) != BPF_PROG_TYPE_TRACING ||
      bpf_program__expected_attach_type(program) != BPF_TRACE_RAW_TP) {
    return refuse(absl::StrCat("the object's program '", name,
                               "' is not one for a tracepoint (tp_btf)"));
  }
  const std::string section = bpf_program__section_name(program);
  if (!bpf_program__autoload(program) ||
      section != absl::StrCat("tp_btf/", hook->tracepoint())) {
    return refuse(absl::StrCat("the object has '", name, "' in section '",
                               Printable(section),
                               "', the manifest hooks it "
                               "to tracepoint '",
                               hook->tracepoint(), "'"));
  }
  return absl::OkStatus();
}

// What enrolled.bpf.h declares.
absl::Status CheckEnrolled(const bpf_object* object, const Manifest& manifest) {
  const auto refuse = [&](const char* what) {
    return manifest.RefuseAt(
        manifest.At("object"), v1::REASON_OBJECT_MISMATCH,
        absl::StrCat("the object has no '", what,
                     "', or another than bpfgrant/enrolled.bpf.h declares"));
  };
  const bpf_map* map = MapOf(object, kEnrolledMap);
  if (map == nullptr || bpf_map__type(map) != BPF_MAP_TYPE_TASK_STORAGE ||
      bpf_map__value_size(map) != sizeof(bpfgrant_enrolled) ||
      bpf_map__pin_path(map) != nullptr) {
    return refuse(kEnrolledMap);
  }
  const bpf_program* executed =
      bpf_object__find_program_by_name(object, kExecutedProgram);
  if (executed == nullptr || !bpf_program__autoload(executed) ||
      std::string_view(bpf_program__section_name(executed)) !=
          "tp_btf/sched_process_exec") {
    return refuse(kExecutedProgram);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckHookedPrograms(const bpf_object* object,
                                 const Manifest& manifest) {
  ptrdiff_t count = 0;
  const bpf_program* program = nullptr;
  while ((program = bpf_object__next_program(
              object, const_cast<bpf_program*>(program))) != nullptr) {
    if (std::string_view(bpf_program__name(program)) == kExecutedProgram) {
      continue;
    }
    if (auto status = CheckHookedProgram(program, manifest); !status.ok()) {
      return status;
    }
    ++count;
  }
  if (count != manifest.message().hook_size()) {
    return manifest.RefuseAt(
        manifest.At("hook"), v1::REASON_OBJECT_MISMATCH,
        absl::StrCat("the manifest hooks ", manifest.message().hook_size(),
                     " functions, the object has ", count, " of them"));
  }
  return CheckEnrolled(object, manifest);
}

absl::Status CheckMapOfEachGrant(bpf_map* map, const Manifest& manifest,
                                 int index) {
  if (bpf_map__type(map) == BPF_MAP_TYPE_ARRAY_OF_MAPS &&
      bpf_map__max_entries(map) == kGateSlots &&
      bpf_map__inner_map(map) != nullptr) {
    return absl::OkStatus();
  }
  return manifest.RefuseAt(
      manifest.text().Where("map", index, "name"), v1::REASON_OBJECT_MISMATCH,
      absl::StrCat("the object's map '", bpf_map__name(map),
                   "' is not an array of maps, one for each of ", kGateSlots,
                   " grants"));
}

}  // namespace bpfgrant::daemon
