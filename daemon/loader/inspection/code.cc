#include "daemon/loader/inspection/code.h"

#include <elf.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>
#include <utility>

#include "daemon/loader/elf_file.h"
#include "daemon/loader/elf_symbols.h"

namespace bpfgrant::daemon {
namespace {

constexpr char kMapSection[] = ".maps";

bool IsCallOfFunction(const bpf_insn& instruction) {
  return instruction.code == (BPF_JMP | BPF_CALL) &&
         instruction.src_reg == BPF_PSEUDO_CALL;
}

bool IsAddress(const bpf_insn& instruction) {
  return instruction.code == (BPF_LD | BPF_IMM | BPF_DW);
}

class Reader {
 public:
  explicit Reader(const ElfFile& file) : elf_(file) {}

  Code Read() {
    for (const Elf64_Sym& symbol : elf_.symbols()) AddFunction(symbol);
    for (const auto& [place, index] : places_) ReferToNeighbours(place, index);
    for (const ElfFile::Section& section : elf_.sections()) {
      if (section.type == SHT_REL) AddRelocations(section);
    }
    return std::move(code_);
  }

 private:
  using Place = std::pair<size_t, uint64_t>;  // a section, an offset

  // The same bytes under several names would be read as often.
  void AddFunction(const Elf64_Sym& symbol) {
    const size_t section = symbol.st_shndx;
    if (ELF64_ST_TYPE(symbol.st_info) != STT_FUNC ||
        section >= elf_.sections().size() ||
        elf_.sections()[section].type != SHT_PROGBITS) {
      return;
    }
    const std::string_view data = elf_.sections()[section].data;
    const uint64_t begin = symbol.st_value;
    if (begin % sizeof(bpf_insn) != 0 || begin >= data.size() ||
        symbol.st_size > data.size() - begin ||
        Overlaps({section, begin}, symbol.st_size)) {
      return;
    }
    Function function{elf_.NameOf(symbol), elf_.SectionName(section)};
    function.code.resize(symbol.st_size / sizeof(bpf_insn));
    if (function.code.empty()) return;
    std::memcpy(function.code.data(), data.data() + begin,
                function.code.size() * sizeof(bpf_insn));
    places_[{section, begin}] = static_cast<uint32_t>(code_.functions.size());
    code_.functions.push_back(std::move(function));
  }

  bool Overlaps(Place begin, uint64_t size) const {
    const auto next = places_.lower_bound(begin);
    return FunctionAt(begin).has_value() ||
           (next != places_.end() && next->first.first == begin.first &&
            next->first.second - begin.second < size);
  }

  // The function in whose code that is, and which of its instructions.
  std::optional<std::pair<uint32_t, size_t>> FunctionAt(Place place) const {
    auto found = places_.upper_bound(place);
    if (found == places_.begin()) return std::nullopt;
    --found;
    const auto& [begin, index] = *found;
    const size_t at = (place.second - begin.second) / sizeof(bpf_insn);
    if (begin.first != place.first ||
        at >= code_.functions[index].code.size()) {
      return std::nullopt;
    }
    return std::pair{index, at};
  }

  void ReferToFunction(uint32_t from, size_t at, Place place) {
    const auto found = FunctionAt(place);
    if (!found.has_value()) return;
    code_.functions[from].targets[at] = {Target::Kind::kFunction, found->first};
  }

  // Calls within a section have no relocation.
  void ReferToNeighbours(Place begin, uint32_t index) {
    const Function& function = code_.functions[index];
    for (size_t i = 0; i < function.code.size(); ++i) {
      if (!IsCallOfFunction(function.code[i])) continue;
      ReferToFunction(
          index, i,
          {begin.first, OffsetOf(begin.second, i + 1, function.code[i].imm)});
    }
  }

  // Wraps around: whatever comes out is looked up.
  static uint64_t OffsetOf(uint64_t begin, uint64_t instruction, int32_t jump) {
    return begin + (instruction + static_cast<uint64_t>(int64_t{jump})) *
                       sizeof(bpf_insn);
  }

  void AddRelocations(const ElfFile::Section& section) {
    for (const Elf64_Rel& relocation : ElfSymbols::RelocationsOf(section)) {
      const auto from = FunctionAt({section.info, relocation.r_offset});
      const Elf64_Sym* symbol = elf_.TargetOf(relocation);
      if (from.has_value() && symbol != nullptr) {
        Refer(from->first, from->second, *symbol);
      }
    }
  }

  void Refer(uint32_t from, size_t at, const Elf64_Sym& symbol) {
    Function& function = code_.functions[from];
    const bpf_insn& instruction = function.code[at];
    if (symbol.st_shndx == SHN_UNDEF) {
      function.targets[at] = {Target::Kind::kKernel, KernelIndex(symbol)};
    } else if (IsCallOfFunction(instruction)) {
      ReferToFunction(
          from, at,
          {symbol.st_shndx, OffsetOf(symbol.st_value, 1, instruction.imm)});
    } else if (IsAddress(instruction)) {
      ReferToAddress(from, at, symbol);
    }
  }

  void ReferToAddress(uint32_t from, size_t at, const Elf64_Sym& symbol) {
    const auto offset =
        static_cast<uint64_t>(int64_t{code_.functions[from].code[at].imm});
    if (const auto found =
            FunctionAt({symbol.st_shndx, symbol.st_value + offset})) {
      code_.functions[from].targets[at] = {Target::Kind::kFunction,
                                           found->first};
    } else if (const auto object = ObjectAt(symbol)) {
      code_.functions[from].targets[at] = {Target::Kind::kObject, *object};
    }
  }

  uint32_t KernelIndex(const Elf64_Sym& symbol) {
    const auto [found, added] = kernel_.try_emplace(
        symbol.st_name, static_cast<uint32_t>(code_.kernel.size()));
    if (added) code_.kernel.push_back(elf_.NameOf(symbol));
    return found->second;
  }

  // Maps are where they stand; of globals it is their section.
  std::optional<uint32_t> ObjectAt(const Elf64_Sym& symbol) {
    const std::string section = elf_.SectionName(symbol.st_shndx);
    if (section.empty()) return std::nullopt;
    const bool is_map = section == kMapSection;
    const Place place{symbol.st_shndx, is_map ? symbol.st_value : 0};
    const auto [found, added] = objects_.try_emplace(
        place, static_cast<uint32_t>(code_.objects.size()));
    if (added) {
      code_.objects.push_back({is_map ? MapAt(place) : section, !is_map});
    }
    return found->second;
  }

  std::string MapAt(Place place) const {
    for (const Elf64_Sym& symbol : elf_.symbols()) {
      if (symbol.st_shndx == place.first && symbol.st_value == place.second &&
          ELF64_ST_TYPE(symbol.st_info) == STT_OBJECT) {
        return elf_.NameOf(symbol);
      }
    }
    return "";
  }

  ElfSymbols elf_;
  Code code_;
  std::map<Place, uint32_t> places_;     // of functions
  std::map<Place, uint32_t> objects_;    // of maps and globals
  std::map<uint32_t, uint32_t> kernel_;  // by the name's place
};

}  // namespace

std::vector<uint32_t> Code::ReachableFrom(uint32_t function) const {
  std::vector<uint32_t> reachable;
  if (function >= functions.size()) return reachable;
  std::set<uint32_t> seen{function};
  reachable.push_back(function);
  for (size_t i = 0; i < reachable.size(); ++i) {
    for (const auto& [at, target] : functions[reachable[i]].targets) {
      if (target.kind == Target::Kind::kFunction &&
          seen.insert(target.index).second) {
        reachable.push_back(target.index);
      }
    }
  }
  return reachable;
}

uint32_t Code::FindFunction(std::string_view name) const {
  const auto found = std::ranges::find(functions, name, &Function::name);
  return static_cast<uint32_t>(found - functions.begin());
}

Code ReadCode(std::string_view object) {
  const auto file = ElfFile::OfBytes(object);
  return file.has_value() ? Reader(*file).Read() : Code();
}

}  // namespace bpfgrant::daemon
