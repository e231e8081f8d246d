// The symbols and relocations of a BPF object: who refers to what. The file may
// hold anything; what makes no sense is left out.

#ifndef DAEMON_LOADER_ELF_SYMBOLS_H_
#define DAEMON_LOADER_ELF_SYMBOLS_H_

#include <elf.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/loader/elf_file.h"

namespace bpfgrant::daemon {

class ElfSymbols {
 public:
  // BPF objects are 64-bit files in the byte order of the machine. `file` must
  // live as long.
  explicit ElfSymbols(const ElfFile& file);

  const std::vector<ElfFile::Section>& sections() const { return sections_; }
  const std::vector<Elf64_Sym>& symbols() const { return symbols_; }

  // "" if there is none.
  std::string SectionName(size_t index) const;
  std::string NameOf(const Elf64_Sym& symbol) const;
  // What a relocation refers to; null: nothing.
  const Elf64_Sym* TargetOf(const Elf64_Rel& relocation) const;

  // Of a section of type SHT_REL.
  static std::vector<Elf64_Rel> RelocationsOf(const ElfFile::Section& section);

 private:
  std::vector<ElfFile::Section> sections_;  // by their index
  std::vector<Elf64_Sym> symbols_;
  size_t names_ = 0;
};

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_ELF_SYMBOLS_H_
