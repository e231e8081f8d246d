#include "daemon/loader/forecast.h"

#include <linux/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "daemon/loader/btf_match.h"
#include "daemon/loader/core_relocations.h"
#include "daemon/loader/helper_name.h"
#include "daemon/loader/loop_link.h"
#include "daemon/loader/loop_manifest.h"
#include "daemon/loader/loop_object.h"
#include "daemon/loader/object.h"
#include "daemon/loader/references.h"
#include "daemon/loader/tracing_manifest.h"
#include "daemon/loader/tracing_object.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::daemon {
namespace {

// What is missing, in the order in which a load would meet it.
struct Missing {
  std::vector<std::string> for_certain;
  // Unless the program goes another way there.
  std::vector<std::string> perhaps;
};

// The functions that are programs here.
std::vector<std::string> FunctionsOf(const v1::Manifest& manifest) {
  if (IsLoop(manifest)) return {kLoopEntry};
  if (!IsTracing(manifest)) return {manifest.program().function()};
  std::vector<std::string> functions = {kExecutedProgram};
  for (const v1::Manifest::Hook& hook : manifest.hook()) {
    functions.push_back(hook.function());
  }
  return functions;
}

class Examination {
 public:
  Examination(const Program& program, const bpf_object* object,
              const KernelTypes& kernel)
      : program_(program),
        manifest_(program.manifest->message()),
        object_(object),
        kernel_(kernel) {}

  Forecast Run() {
    CheckKinds();
    for (const std::string& function : FunctionsOf(manifest_)) {
      CheckFunctions(ReadReferences(program_.loadable(), function));
      CheckAccesses(function);
    }
    CheckHelpers();
    CheckConfiguration();
    Forecast forecast;
    if (asks_) {
      forecast.open = std::move(missing_.perhaps);
    } else {
      std::ranges::move(missing_.perhaps,
                        std::back_inserter(missing_.for_certain));
    }
    if (!missing_.for_certain.empty()) {
      const Manifest& manifest = *program_.manifest;
      forecast.against =
          manifest.RefuseAt(manifest.At("object"), v1::REASON_KERNEL_TOO_OLD,
                            missing_.for_certain.front());
    }
    return forecast;
  }

 private:
  // Of program and maps.
  void CheckKinds() {
    if (IsLoop(manifest_) && !HasLoops(kernel_)) {
      missing_.for_certain.push_back(kNoLoops);
    }
    if (!kernel_.HasValue("bpf_prog_type",
                          KernelType(manifest_.program().type()))) {
      missing_.for_certain.push_back(
          absl::StrCat("the kernel has no programs of type ",
                       TypeName(manifest_.program().type())));
    }
    for (const v1::Manifest::Hook& hook : manifest_.hook()) {
      const std::string type = absl::StrCat("btf_trace_", hook.tracepoint());
      if (btf__find_by_name_kind(kernel_.get(), type.c_str(),
                                 BTF_KIND_TYPEDEF) > 0) {
        continue;
      }
      missing_.for_certain.push_back(absl::StrCat(
          "the kernel has no tracepoint '", hook.tracepoint(), "'"));
    }
    const bpf_map* map;
    bpf_object__for_each_map(map, object_) {
      const auto type = bpf_map__type(map);
      if (!bpf_map__autocreate(map) || kernel_.HasValue("bpf_map_type", type)) {
        continue;
      }
      missing_.for_certain.push_back(
          absl::StrCat("the kernel has no maps of the type of '",
                       bpf_map__name(map), "' (", type, ")"));
    }
  }

  // libbpf looks for all that the object names, whoever calls them.
  void CheckFunctions(const References& references) {
    const btf* local = bpf_object__btf(object_);
    for (const auto& [name, outer] : references.functions) {
      const int id = btf__find_by_name_kind(local, name.c_str(), BTF_KIND_FUNC);
      if (id <= 0) continue;
      std::string wrong = WrongWith({local, static_cast<uint32_t>(id)});
      if (wrong.empty()) continue;
      if (!outer.weak) {
        missing_.for_certain.push_back(std::move(wrong));
      } else if (outer.used) {
        asks_ = asks_ || outer.asks;
        missing_.perhaps.push_back(std::move(wrong));
      }
    }
  }

  std::string WrongWith(BtfPlace function) const {
    const std::string name(EssentialName(function.name()));
    const int id =
        btf__find_by_name_kind(kernel_.get(), name.c_str(), BTF_KIND_FUNC);
    if (id <= 0) return absl::StrCat("the kernel has no function '", name, "'");
    const uint32_t prototype = btf__type_by_id(kernel_.get(), id)->type;
    if (PrototypesMatch({function.types, function.get()->type},
                        {kernel_.get(), prototype})) {
      return "";
    }
    return absl::StrCat("the kernel's function '", name,
                        "' takes or returns something else");
  }

  // Of the programs themselves: functions that they may call need not be
  // called.
  void CheckHelpers() {
    bpf_program* program;
    bpf_object__for_each_program(program, object_) {
      if (bpf_program__autoload(program)) CheckHelpersOf(program);
    }
  }

  void CheckHelpersOf(const bpf_program* program) {
    const bpf_insn* code = bpf_program__insns(program);
    for (size_t i = 0; i < bpf_program__insn_cnt(program); ++i) {
      const auto helper = static_cast<uint32_t>(code[i].imm);
      if (code[i].code != (BPF_JMP | BPF_CALL) || code[i].src_reg != 0 ||
          kernel_.HasValue("bpf_func_id", helper)) {
        continue;
      }
      missing_.perhaps.push_back(
          absl::StrCat("the kernel has no helper '", HelperName(helper), "'"));
    }
  }

  void CheckAccesses(const std::string& function) {
    for (KernelAccess& access :
         FindAccesses(program_.loadable(), bpf_object__btf(object_), function,
                      kernel_.get())) {
      if (access.found) continue;
      if (access.asks) {
        asks_ = true;
      } else {
        missing_.perhaps.push_back(
            absl::StrCat("the kernel has no '", access.what, "'"));
      }
    }
  }

  // Who has it may ask for the kernel's configuration or version.
  void CheckConfiguration() {
    const bpf_map* map;
    bpf_object__for_each_map(map, object_) {
      const std::string_view name = bpf_map__name(map);
      if (bpf_map__is_internal(map) && name.ends_with(".kconfig")) asks_ = true;
    }
  }

  const Program& program_;
  const v1::Manifest& manifest_;
  const bpf_object* object_;
  const KernelTypes& kernel_;
  Missing missing_;
  // It looks what the kernel has, and found something missing.
  bool asks_ = false;
};

}  // namespace

Forecast Foretell(const Program& program, int variant,
                  const KernelTypes& kernel) {
  const Manifest& manifest = *program.manifest;
  if (auto status = CheckNeeds(manifest, variant, kernel); !status.ok()) {
    return {status, {}};
  }
  const auto object = OpenProgram(program.loadable(), manifest.message());
  if (!object.ok()) return {object.status(), {}};
  return Examination(program, object->get(), kernel).Run();
}

}  // namespace bpfgrant::daemon
