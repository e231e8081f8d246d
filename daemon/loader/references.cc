#include "daemon/loader/references.h"

#include <elf.h>

#include "daemon/loader/elf_file.h"
#include "daemon/loader/elf_symbols.h"

namespace bpfgrant::daemon {
namespace {

// R_BPF_64_64: where something is, as opposed to a call of it.
constexpr uint32_t kAddress = 1;
// R_BPF_64_32.
constexpr uint32_t kCall = 10;

class Reader {
 public:
  explicit Reader(const ElfFile& file) : elf_(file) {}

  References Read(std::string_view function) const {
    References found;
    found.code = Find(function);
    for (const Elf64_Sym& symbol : elf_.symbols()) {
      if (symbol.st_shndx != SHN_UNDEF || symbol.st_name == 0) continue;
      found.functions[elf_.NameOf(symbol)].weak =
          ELF64_ST_BIND(symbol.st_info) == STB_WEAK;
    }
    for (const ElfFile::Section& section : elf_.sections()) {
      if (section.type != SHT_REL) continue;
      const std::string target = elf_.SectionName(section.info);
      // Functions that programs call, and maps that are in others.
      const bool of_all = target == kFunctionSection || target == ".maps";
      for (const Elf64_Rel& relocation : ElfSymbols::RelocationsOf(section)) {
        if (of_all || (found.code.has_value() &&
                       found.code->Contains(target, relocation.r_offset))) {
          Add(relocation, found);
        }
      }
    }
    return found;
  }

 private:
  std::optional<CodeSpan> Find(std::string_view function) const {
    for (const Elf64_Sym& symbol : elf_.symbols()) {
      if (ELF64_ST_TYPE(symbol.st_info) == STT_FUNC &&
          elf_.NameOf(symbol) == function) {
        return CodeSpan{elf_.SectionName(symbol.st_shndx), symbol.st_value,
                        symbol.st_value + symbol.st_size};
      }
    }
    return std::nullopt;
  }

  void Add(const Elf64_Rel& relocation, References& found) const {
    const Elf64_Sym* target = elf_.TargetOf(relocation);
    if (target == nullptr) return;
    const Elf64_Sym& symbol = *target;
    if (symbol.st_shndx == SHN_UNDEF) {
      OuterFunction& outer = found.functions[elf_.NameOf(symbol)];
      outer.used = true;
      if (ELF64_R_TYPE(relocation.r_info) == kAddress) outer.asks = true;
    } else if (elf_.SectionName(symbol.st_shndx) == ".maps") {
      AddMapAt(symbol, found);
    } else if (ELF64_R_TYPE(relocation.r_info) == kCall &&
               elf_.SectionName(symbol.st_shndx) != kFunctionSection) {
      found.called.insert(elf_.SectionName(symbol.st_shndx));
    }
  }

  // Maps are where they stand, as libbpf has it: what is referred to can be the
  // section.
  void AddMapAt(const Elf64_Sym& place, References& found) const {
    for (const Elf64_Sym& symbol : elf_.symbols()) {
      if (symbol.st_shndx == place.st_shndx &&
          symbol.st_value == place.st_value &&
          ELF64_ST_TYPE(symbol.st_info) == STT_OBJECT) {
        found.maps.insert(elf_.NameOf(symbol));
      }
    }
  }

  ElfSymbols elf_;
};

}  // namespace

References ReadReferences(std::string_view object, std::string_view function) {
  const auto file = ElfFile::OfBytes(object);
  return file.has_value() ? Reader(*file).Read(function) : References();
}

}  // namespace bpfgrant::daemon
