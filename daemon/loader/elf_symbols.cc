#include "daemon/loader/elf_symbols.h"

#include <cstring>

namespace bpfgrant::daemon {
namespace {

template <typename Record>
std::vector<Record> RecordsOf(const ElfFile::Section& section) {
  std::vector<Record> records(section.data.size() / sizeof(Record));
  if (!records.empty()) {
    std::memcpy(records.data(), section.data.data(),
                records.size() * sizeof(Record));
  }
  return records;
}

}  // namespace

ElfSymbols::ElfSymbols(const ElfFile& file) {
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

std::string ElfSymbols::SectionName(size_t index) const {
  return index < sections_.size() ? sections_[index].name : "";
}

std::string ElfSymbols::NameOf(const Elf64_Sym& symbol) const {
  const std::string_view names =
      names_ < sections_.size() ? sections_[names_].data : "";
  if (symbol.st_name >= names.size()) return "";
  const std::string_view from = names.substr(symbol.st_name);
  return std::string(from.substr(0, from.find('\0')));
}

const Elf64_Sym* ElfSymbols::TargetOf(const Elf64_Rel& relocation) const {
  const size_t index = ELF64_R_SYM(relocation.r_info);
  return index < symbols_.size() ? &symbols_[index] : nullptr;
}

std::vector<Elf64_Rel> ElfSymbols::RelocationsOf(
    const ElfFile::Section& section) {
  return RecordsOf<Elf64_Rel>(section);
}

}  // namespace bpfgrant::daemon
