#include "daemon/loader/object_uses.h"

#include <linux/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include <cstring>
#include <set>
#include <string_view>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "daemon/loader/btf_match.h"
#include "daemon/loader/elf_file.h"
#include "daemon/loader/helper_name.h"
#include "daemon/loader/loop_object.h"
#include "daemon/loader/map_memory.h"
#include "daemon/loader/object.h"
#include "daemon/loader/references.h"
#include "daemon/loader/tracing_object.h"
#include "proto/wire/limits.h"

namespace bpfgrant::daemon {
namespace {

void AddCode(const bpf_insn* code, size_t count, ObjectUses& uses) {
  uses.amounts.instructions += count;
  for (size_t i = 0; i < count; ++i) {
    if (code[i].code != (BPF_JMP | BPF_CALL)) continue;
    const auto called = static_cast<uint32_t>(code[i].imm);
    if (code[i].src_reg == 0) uses.helpers.insert(HelperName(called));
    if (code[i].src_reg == BPF_PSEUDO_KFUNC_CALL) {
      uses.kfuncs.insert(absl::StrCat("number ", called));
    }
  }
}

// Functions that are no programs: any of them may be called.
void AddFunctions(std::string_view bytes, ObjectUses& uses) {
  const auto file = ElfFile::OfBytes(bytes);
  if (!file.has_value()) return;
  const auto section = file->Find(kFunctionSection);
  if (!section.has_value()) return;
  std::vector<bpf_insn> code(section->data.size() / sizeof(bpf_insn));
  if (code.empty()) return;
  std::memcpy(code.data(), section->data.data(),
              code.size() * sizeof(bpf_insn));
  AddCode(code.data(), code.size(), uses);
}

void AddKfuncs(const bpf_object* object, const References& references,
               ObjectUses& uses) {
  for (const auto& [name, function] : references.functions) {
    if (function.used &&
        btf__find_by_name_kind(bpf_object__btf(object), name.c_str(),
                               BTF_KIND_FUNC) > 0) {
      uses.kfuncs.emplace(EssentialName(name));
    }
  }
}

std::string MapTypeOf(const bpf_map* map) {
  const char* name = libbpf_bpf_map_type_str(bpf_map__type(map));
  return name != nullptr ? absl::AsciiStrToUpper(name)
                         : absl::StrCat("number ", bpf_map__type(map));
}

// What the daemon brings along is nobody's choice.
bool IsDaemons(std::string_view name) {
  return name == kGateMap || name == kLoopTraceMap || name == kLoopStepsMap ||
         name == kEnrolledMap;
}

void AddMaps(const bpf_object* object, ObjectUses& uses) {
  const bpf_map* map;
  bpf_object__for_each_map(map, object) {
    if (!bpf_map__autocreate(map) || IsDaemons(bpf_map__name(map))) continue;
    ++uses.amounts.maps;
    uses.map_types.insert(MapTypeOf(map));
    uint64_t entries = bpf_map__max_entries(map);
    const bpf_map_type type = bpf_map__type(map);
    const bpf_map* inner = bpf_map__inner_map(const_cast<bpf_map*>(map));
    if (inner != nullptr) {
      uses.map_types.insert(MapTypeOf(inner));
      // With one for each gate a grant has one of them.
      entries =
          (entries == kGateSlots ? 1 : entries) * bpf_map__max_entries(inner);
    } else if (type == BPF_MAP_TYPE_RINGBUF ||
               type == BPF_MAP_TYPE_USER_RINGBUF) {
      entries = 0;  // of these they are bytes
    }
    uses.amounts.entries += entries;
  }
}

// The programs that are loaded, and those that they call as functions.
std::set<const bpf_program*> LoadedPrograms(const bpf_object* object,
                                            std::string_view bytes,
                                            ObjectUses& uses) {
  std::set<const bpf_program*> loaded;
  std::set<std::string> called;
  for (bool grew = true; grew;) {
    grew = false;
    bpf_program* one;
    bpf_object__for_each_program(one, object) {
      if (loaded.contains(one) ||
          (!bpf_program__autoload(one) &&
           !called.contains(bpf_program__section_name(one)))) {
        continue;
      }
      const References references =
          ReadReferences(bytes, bpf_program__name(one));
      AddKfuncs(object, references, uses);
      called.insert(references.called.begin(), references.called.end());
      loaded.insert(one);
      grew = true;
    }
  }
  return loaded;
}

}  // namespace

ObjectUses FindUses(const Program& program, const bpf_object* object) {
  ObjectUses uses;
  const std::string_view bytes = program.loadable();
  for (const bpf_program* one : LoadedPrograms(object, bytes, uses)) {
    AddCode(bpf_program__insns(one), bpf_program__insn_cnt(one), uses);
  }
  AddFunctions(bytes, uses);
  AddMaps(object, uses);
  uses.amounts.object_bytes = program.object.view().size();
  uses.amounts.map_bytes = EstimateMapBytes(object);
  return uses;
}

}  // namespace bpfgrant::daemon
