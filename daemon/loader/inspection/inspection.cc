#include "daemon/loader/inspection/inspection.h"

#include <linux/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "daemon/loader/elf_file.h"
#include "daemon/loader/helper_name.h"
#include "daemon/loader/inspection/code.h"
#include "daemon/loader/inspection/dangers.h"
#include "daemon/loader/inspection/helpers.h"
#include "daemon/loader/inspection/holders.h"
#include "daemon/loader/inspection/map_use.h"
#include "daemon/loader/loop_link.h"
#include "daemon/loader/loop_object.h"
#include "daemon/loader/map_memory.h"
#include "daemon/loader/object.h"
#include "daemon/loader/tracing_object.h"
#include "google/protobuf/repeated_field.h"

namespace bpfgrant::daemon {
namespace {

// Sections that no program can write.
constexpr std::string_view kConstants = ".rodata";

using Names = google::protobuf::RepeatedPtrField<std::string>;

// In doubt "#7", as for helpers.
std::string NameOr(const char* name, uint32_t number) {
  return name != nullptr ? name : absl::StrCat("#", number);
}

// One line, whatever the file has: it goes into tables and comments.
std::string LineOf(std::string_view text) {
  std::string line = Printable(text);
  std::ranges::replace_if(line, absl::ascii_isspace, '_');
  return line;
}

std::string TextOf(const char* text) {
  return text == nullptr ? "" : LineOf(text);
}

bool IsPerCpu(uint32_t type) {
  return type == BPF_MAP_TYPE_PERCPU_ARRAY ||
         type == BPF_MAP_TYPE_PERCPU_HASH ||
         type == BPF_MAP_TYPE_LRU_PERCPU_HASH ||
         type == BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE;
}

void AddFlags(uint32_t flags, Names& names) {
  constexpr std::pair<uint32_t, const char*> kFlags[] = {
      {BPF_F_NO_PREALLOC, "NO_PREALLOC"},
      {BPF_F_NO_COMMON_LRU, "NO_COMMON_LRU"},
      {BPF_F_NUMA_NODE, "NUMA_NODE"},
      {BPF_F_RDONLY, "RDONLY"},
      {BPF_F_WRONLY, "WRONLY"},
      {BPF_F_ZERO_SEED, "ZERO_SEED"},
      {BPF_F_RDONLY_PROG, "RDONLY_PROG"},
      {BPF_F_WRONLY_PROG, "WRONLY_PROG"},
      {BPF_F_CLONE, "CLONE"},
      {BPF_F_MMAPABLE, "MMAPABLE"},
      {BPF_F_PRESERVE_ELEMS, "PRESERVE_ELEMS"},
      {BPF_F_INNER_MAP, "INNER_MAP"},
      {1U << 13, "LINK"},  // since Linux 6.4
  };
  for (const auto& [bit, name] : kFlags) {
    if ((flags & bit) != 0) *names.Add() = name;
    flags &= ~bit;
  }
  if (flags != 0) *names.Add() = absl::StrCat("#", absl::Hex(flags));
}

// As libbpf sets it with the load: "fentry.s/..." but not "fentry/...".
bool IsSleepable(std::string_view section) {
  return section.substr(0, section.find('/')).ends_with(".s");
}

// The daemon's own, which no client ever gets.
bool IsDaemons(std::string_view map) {
  return map == kGateMap || map == kEnrolledMap || IsEntryMap(map);
}

// A structure's name; "" of plain numbers.
std::string StructureOf(const btf* types, uint32_t id) {
  const btf_type* type =
      types == nullptr ? nullptr : btf__type_by_id(types, id);
  if (id == 0 || type == nullptr || !btf_is_composite(type)) return "";
  return TextOf(btf__name_by_offset(types, type->name_off));
}

std::string LicenseOf(std::string_view bytes) {
  const auto file = ElfFile::OfBytes(bytes);
  const auto section = file.has_value() ? file->Find("license") : std::nullopt;
  if (!section.has_value()) return "";
  return LineOf(section->data.substr(0, section->data.find('\0')));
}

// libbpf puts the object's name before those of some sections.
std::string NameOf(const v1::InspectedMap& map) {
  const std::string& name = map.name();
  return map.section() ? name.substr(std::min(name.find('.'), name.size()))
                       : name;
}

class Inspector {
 public:
  Inspector(std::string_view bytes, const bpf_object* object)
      : code_(ReadCode(bytes)),
        uses_(FollowMaps(code_)),
        license_(LicenseOf(bytes)),
        object_(object) {}

  v1::Inspection Run() {
    result_.set_btf(bpf_object__btf(object_) != nullptr);
    result_.set_license(license_);
    result_.set_followed(uses_.followed);
    bpf_program* program;
    bpf_object__for_each_program(program, object_) AddProgram(program);
    const bpf_map* map;
    bpf_object__for_each_map(map, object_) AddMap(map);
    result_.set_map_bytes(EstimateMapBytes(object_));
    AddGlobals();
    AddDangers(result_);
    return std::move(result_);
  }

 private:
  void AddProgram(const bpf_program* program) {
    v1::InspectedProgram& found = *result_.add_program();
    const uint32_t type = bpf_program__type(program);
    const uint32_t attach = bpf_program__expected_attach_type(program);
    found.set_name(TextOf(bpf_program__name(program)));
    found.set_section(TextOf(bpf_program__section_name(program)));
    found.set_type(
        NameOr(libbpf_bpf_prog_type_str(bpf_program__type(program)), type));
    if (attach != 0) {
      found.set_attach(NameOr(
          libbpf_bpf_attach_type_str(static_cast<bpf_attach_type>(attach)),
          attach));
    }
    found.set_sleepable(IsSleepable(found.section()));
    found.set_holder(WhatHolderOfProgramCanDo(type));
    DescribeCode(bpf_program__name(program), found);
    if (found.name() == kLoopEntry) DescribeLoop(found);
  }

  // What the author wrote stands behind the loader's own entry.
  static void DescribeLoop(v1::InspectedProgram& found) {
    found.set_name(kLoopStep);
    found.set_type(kLoopType);
    found.clear_holder();
  }

  void DescribeCode(const char* name, v1::InspectedProgram& found) {
    const uint32_t function = code_.FindFunction(name);
    std::set<std::string> helpers, kfuncs;
    uint64_t instructions = 0;
    MapUse all;
    for (const uint32_t f : code_.ReachableFrom(function)) {
      instructions += code_.functions[f].code.size();
      if (f != function) {
        *found.add_function() = LineOf(code_.functions[f].name);
      }
      AddCalls(code_.functions[f], helpers, kfuncs);
      const MapUse& use = uses_.of[f];
      all = {all.looked_up | use.looked_up, all.read | use.read,
             all.written | use.written};
    }
    found.set_instructions(static_cast<uint32_t>(instructions));
    *found.mutable_helper() = {helpers.begin(), helpers.end()};
    *found.mutable_kfunc() = {kfuncs.begin(), kfuncs.end()};
    std::ranges::sort(*found.mutable_function());
    DescribeUse(all, found);
  }

  void AddCalls(const Function& function, std::set<std::string>& helpers,
                std::set<std::string>& kfuncs) const {
    for (size_t i = 0; i < function.code.size(); ++i) {
      const bpf_insn& instruction = function.code[i];
      if (instruction.code != (BPF_JMP | BPF_CALL)) continue;
      const Target* target = function.TargetAt(i);
      if (target != nullptr && target->kind == Target::Kind::kKernel) {
        // What follows "___" tells declarations apart, as libbpf has it.
        const std::string& name = code_.kernel[target->index];
        kfuncs.insert(LineOf(name.substr(0, name.find("___"))));
      } else if (target == nullptr && instruction.src_reg == 0) {
        helpers.insert(HelperName(static_cast<uint32_t>(instruction.imm)));
      }
    }
  }

  void DescribeUse(const MapUse& use, v1::InspectedProgram& found) {
    for (uint32_t i = 0; i < code_.objects.size(); ++i) {
      const std::string name = LineOf(code_.objects[i].name);
      const ObjectSet bit = BitOf(i);
      // Who only asks whether there is an entry reads, too.
      if ((use.read & bit) != 0 ||
          ((use.looked_up & bit) != 0 && (use.written & bit) == 0)) {
        *found.add_reads() = name;
      }
      const bool constant = name.starts_with(kConstants);
      if ((use.written & bit) != 0 && !constant) *found.add_writes() = name;
      if (name == kGateMap && (use.looked_up & bit) != 0) found.set_gate(true);
    }
    std::ranges::sort(*found.mutable_reads());
    std::ranges::sort(*found.mutable_writes());
  }

  void AddMap(const bpf_map* map) {
    v1::InspectedMap& found = *result_.add_map();
    Describe(map, found);
    const std::string name = NameOf(found);
    found.set_name(name);
    for (const v1::InspectedProgram& program : result_.program()) {
      if (std::ranges::count(program.reads(), name) != 0) {
        *found.add_reader() = program.name();
      }
      if (std::ranges::count(program.writes(), name) != 0) {
        *found.add_writer() = program.name();
      }
    }
  }

  void Describe(const bpf_map* map, v1::InspectedMap& found) const {
    const uint32_t type = bpf_map__type(map);
    found.set_name(TextOf(bpf_map__name(map)));
    found.set_type(NameOr(libbpf_bpf_map_type_str(bpf_map__type(map)), type));
    found.set_key_size(bpf_map__key_size(map));
    found.set_value_size(bpf_map__value_size(map));
    found.set_max_entries(bpf_map__max_entries(map));
    AddFlags(bpf_map__map_flags(map), *found.mutable_flag());
    found.set_bytes(EstimateBytes(map));
    found.set_per_cpu(IsPerCpu(type));
    found.set_section(bpf_map__is_internal(map));
    found.set_pinned(bpf_map__pin_path(map) != nullptr);
    found.set_value_type(
        StructureOf(bpf_object__btf(object_), bpf_map__btf_value_type_id(map)));
    found.set_holder(IsDaemons(found.name())
                         ? "nobody does but the daemon"
                         : WhatHolderOfMapCanDo(type, bpf_map__map_flags(map)));
    if (const bpf_map* inner = bpf_map__inner_map(const_cast<bpf_map*>(map))) {
      Describe(inner, *found.mutable_inner());
    }
  }

  // By the sections that its BTF lists.
  void AddGlobals() {
    const btf* types = bpf_object__btf(object_);
    for (uint32_t id = 1; types != nullptr && id < btf__type_cnt(types); ++id) {
      const btf_type* section = btf__type_by_id(types, id);
      const std::string name =
          TextOf(btf__name_by_offset(types, section->name_off));
      if (!btf_is_datasec(section) || !IsOfGlobals(name)) continue;
      const btf_var_secinfo* variables = btf_var_secinfos(section);
      for (int i = 0; i < btf_vlen(section); ++i) {
        AddGlobal(types, name, variables[i]);
      }
    }
  }

  static bool IsOfGlobals(std::string_view section) {
    for (const std::string_view start :
         {std::string_view(".data"), std::string_view(".bss"), kConstants}) {
      if (section.starts_with(start)) return true;
    }
    return false;
  }

  void AddGlobal(const btf* types, const std::string& section,
                 const btf_var_secinfo& place) {
    const btf_type* variable = btf__type_by_id(types, place.type);
    if (variable == nullptr || !btf_is_var(variable)) return;
    v1::InspectedGlobal& global = *result_.add_global();
    global.set_name(TextOf(btf__name_by_offset(types, variable->name_off)));
    global.set_section(section);
    global.set_size(place.size);
    global.set_constant(section.starts_with(kConstants));
  }

  const Code code_;
  const MapUses uses_;
  const std::string license_;
  const bpf_object* object_;
  v1::Inspection result_;
};

}  // namespace

absl::StatusOr<v1::Inspection> InspectObject(std::string_view object) {
  const auto opened = OpenObject(object, "object");
  if (!opened.ok()) return opened.status();
  return Inspector(object, opened->get()).Run();
}

}  // namespace bpfgrant::daemon
