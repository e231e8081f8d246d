#include "daemon/loader/references.h"

#include <gelf.h>
#include <libelf.h>

#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace bpfgrant::daemon {
namespace {

struct ElfEnd {
  void operator()(Elf* elf) const { elf_end(elf); }
};

struct Symbol {
  std::string name;
  GElf_Sym entry;
};

// Where code stands: a section, and the bytes of it.
struct Span {
  size_t section;
  GElf_Addr begin;
  GElf_Addr end;
};

class Reader {
 public:
  explicit Reader(std::string_view object) {
    elf_version(EV_CURRENT);
    elf_.reset(elf_memory(const_cast<char*>(object.data()), object.size()));
    if (elf_ == nullptr || elf_getshdrstrndx(elf_.get(), &names_) != 0) return;
    ReadSymbols();
  }

  References Read(std::string_view function) const {
    References found;
    const std::optional<Span> program = Find(function);
    ForEachSection([&](Elf_Scn* section, const GElf_Shdr& header) {
      if (header.sh_type != SHT_REL || header.sh_entsize == 0) return;
      const std::string target = NameOf(header.sh_info);
      // Functions that programs call, and maps that are in others.
      const bool of_all = target == ".text" || target == ".maps";
      if (!of_all && (!program || header.sh_info != program->section)) return;
      Elf_Data* data = elf_getdata(section, nullptr);
      if (data == nullptr) return;
      const auto count = static_cast<int>(header.sh_size / header.sh_entsize);
      for (int i = 0; i < count; ++i) {
        GElf_Rel relocation;
        if (gelf_getrel(data, i, &relocation) == nullptr) return;
        if (of_all || (relocation.r_offset >= program->begin &&
                       relocation.r_offset < program->end)) {
          Add(GELF_R_SYM(relocation.r_info), found);
        }
      }
    });
    return found;
  }

 private:
  template <typename Visit>
  void ForEachSection(const Visit& visit) const {
    if (elf_ == nullptr) return;
    Elf_Scn* section = nullptr;
    while ((section = elf_nextscn(elf_.get(), section)) != nullptr) {
      GElf_Shdr header;
      if (gelf_getshdr(section, &header) != nullptr) visit(section, header);
    }
  }

  std::string NameOf(size_t section) const {
    GElf_Shdr header;
    Elf_Scn* found = elf_getscn(elf_.get(), section);
    if (found == nullptr || gelf_getshdr(found, &header) == nullptr) return "";
    const char* name = elf_strptr(elf_.get(), names_, header.sh_name);
    return name == nullptr ? "" : name;
  }

  void ReadSymbols() {
    ForEachSection([&](Elf_Scn* section, const GElf_Shdr& header) {
      if (header.sh_type != SHT_SYMTAB || header.sh_entsize == 0) return;
      Elf_Data* data = elf_getdata(section, nullptr);
      if (data == nullptr) return;
      const auto count = static_cast<int>(header.sh_size / header.sh_entsize);
      for (int i = 0; i < count; ++i) {
        Symbol symbol;
        if (gelf_getsym(data, i, &symbol.entry) == nullptr) return;
        const char* name =
            elf_strptr(elf_.get(), header.sh_link, symbol.entry.st_name);
        if (name != nullptr) symbol.name = name;
        symbols_.push_back(std::move(symbol));
      }
    });
  }

  std::optional<Span> Find(std::string_view function) const {
    for (const Symbol& symbol : symbols_) {
      if (symbol.name == function &&
          GELF_ST_TYPE(symbol.entry.st_info) == STT_FUNC) {
        return Span{symbol.entry.st_shndx, symbol.entry.st_value,
                    symbol.entry.st_value + symbol.entry.st_size};
      }
    }
    return std::nullopt;
  }

  void Add(size_t index, References& found) const {
    if (index >= symbols_.size()) return;
    const Symbol& symbol = symbols_[index];
    if (symbol.entry.st_shndx == SHN_UNDEF) {
      found.functions[symbol.name] =
          GELF_ST_BIND(symbol.entry.st_info) == STB_WEAK;
    } else if (NameOf(symbol.entry.st_shndx) == ".maps") {
      AddMapAt(symbol.entry, found);
    }
  }

  // Maps are where they stand, as libbpf has it: what is referred to can be the
  // section.
  void AddMapAt(const GElf_Sym& place, References& found) const {
    for (const Symbol& symbol : symbols_) {
      if (symbol.entry.st_shndx == place.st_shndx &&
          symbol.entry.st_value == place.st_value &&
          GELF_ST_TYPE(symbol.entry.st_info) == STT_OBJECT) {
        found.maps.insert(symbol.name);
      }
    }
  }

  std::unique_ptr<Elf, ElfEnd> elf_;
  size_t names_ = 0;
  std::vector<Symbol> symbols_;
};

}  // namespace

References ReadReferences(std::string_view object, std::string_view function) {
  return Reader(object).Read(function);
}

}  // namespace bpfgrant::daemon
