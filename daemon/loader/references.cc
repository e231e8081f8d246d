#include "daemon/loader/references.h"

#include <elf.h>

#include <cstring>
#include <vector>

#include "daemon/loader/elf_file.h"

namespace bpfgrant::daemon {
namespace {

// BPF objects are 64-bit files in the byte order of the machine.
template <typename Record>
std::vector<Record> RecordsOf(const ElfFile::Section& section) {
  std::vector<Record> records(section.data.size() / sizeof(Record));
  if (!records.empty()) {
    std::memcpy(records.data(), section.data.data(),
                records.size() * sizeof(Record));
  }
  return records;
}

// R_BPF_64_64: where something is, as opposed to a call of it.
constexpr uint32_t kAddress = 1;

class Reader {
 public:
  explicit Reader(const ElfFile& file) {
    file.ForEach([this](const ElfFile::Section& section) {
      if (sections_.size() <= section.index) {
        sections_.resize(section.index + 1);
      }
      sections_[section.index] = section;
      if (section.type == SHT_SYMTAB) {
        symbols_ = RecordsOf<Elf64_Sym>(section);
        names_ = section.link;
      }
    });
  }

  References Read(std::string_view function) const {
    References found;
    found.code = Find(function);
    for (const Elf64_Sym& symbol : symbols_) {
      if (symbol.st_shndx != SHN_UNDEF || symbol.st_name == 0) continue;
      found.functions[NameOf(symbol)].weak =
          ELF64_ST_BIND(symbol.st_info) == STB_WEAK;
    }
    for (const ElfFile::Section& section : sections_) {
      if (section.type != SHT_REL) continue;
      const std::string target = SectionName(section.info);
      // Functions that programs call, and maps that are in others.
      const bool of_all = target == kFunctionSection || target == ".maps";
      for (const Elf64_Rel& relocation : RecordsOf<Elf64_Rel>(section)) {
        if (of_all || (found.code.has_value() &&
                       found.code->Contains(target, relocation.r_offset))) {
          Add(relocation, found);
        }
      }
    }
    return found;
  }

 private:
  std::string SectionName(size_t index) const {
    return index < sections_.size() ? sections_[index].name : "";
  }

  std::string NameOf(const Elf64_Sym& symbol) const {
    const std::string_view names =
        names_ < sections_.size() ? sections_[names_].data : "";
    if (symbol.st_name >= names.size()) return "";
    const std::string_view from = names.substr(symbol.st_name);
    return std::string(from.substr(0, from.find('\0')));
  }

  std::optional<CodeSpan> Find(std::string_view function) const {
    for (const Elf64_Sym& symbol : symbols_) {
      if (ELF64_ST_TYPE(symbol.st_info) == STT_FUNC &&
          NameOf(symbol) == function) {
        return CodeSpan{SectionName(symbol.st_shndx), symbol.st_value,
                        symbol.st_value + symbol.st_size};
      }
    }
    return std::nullopt;
  }

  void Add(const Elf64_Rel& relocation, References& found) const {
    const size_t index = ELF64_R_SYM(relocation.r_info);
    if (index >= symbols_.size()) return;
    const Elf64_Sym& symbol = symbols_[index];
    if (symbol.st_shndx == SHN_UNDEF) {
      OuterFunction& outer = found.functions[NameOf(symbol)];
      outer.used = true;
      if (ELF64_R_TYPE(relocation.r_info) == kAddress) outer.asks = true;
    } else if (SectionName(symbol.st_shndx) == ".maps") {
      AddMapAt(symbol, found);
    }
  }

  // Maps are where they stand, as libbpf has it: what is referred to can be the
  // section.
  void AddMapAt(const Elf64_Sym& place, References& found) const {
    for (const Elf64_Sym& symbol : symbols_) {
      if (symbol.st_shndx == place.st_shndx &&
          symbol.st_value == place.st_value &&
          ELF64_ST_TYPE(symbol.st_info) == STT_OBJECT) {
        found.maps.insert(NameOf(symbol));
      }
    }
  }

  std::vector<ElfFile::Section> sections_;  // by their index
  std::vector<Elf64_Sym> symbols_;
  size_t names_ = 0;
};

}  // namespace

References ReadReferences(std::string_view object, std::string_view function) {
  const auto file = ElfFile::OfBytes(object);
  return file.has_value() ? Reader(*file).Read(function) : References();
}

}  // namespace bpfgrant::daemon
