#include "daemon/loader/elf_file.h"

#include <gelf.h>
#include <libelf.h>

namespace bpfgrant::daemon {

void ElfFile::End::operator()(Elf* elf) const { elf_end(elf); }

std::optional<ElfFile> ElfFile::OfBytes(std::string_view bytes) {
  elf_version(EV_CURRENT);
  ElfFile file(elf_memory(const_cast<char*>(bytes.data()), bytes.size()));
  if (elf_kind(file.elf_.get()) != ELF_K_ELF) return std::nullopt;
  return file;
}

std::optional<ElfFile> ElfFile::OfFile(int file) {
  elf_version(EV_CURRENT);
  ElfFile opened(elf_begin(file, ELF_C_READ_MMAP, nullptr));
  if (elf_kind(opened.elf_.get()) != ELF_K_ELF) return std::nullopt;
  return opened;
}

void ElfFile::ForEach(const std::function<void(const Section&)>& visit) const {
  size_t names = 0;
  if (elf_getshdrstrndx(elf_.get(), &names) != 0) return;
  Elf_Scn* scan = nullptr;
  while ((scan = elf_nextscn(elf_.get(), scan)) != nullptr) {
    GElf_Shdr header;
    if (gelf_getshdr(scan, &header) == nullptr) continue;
    Section section;
    const char* name = elf_strptr(elf_.get(), names, header.sh_name);
    if (name != nullptr) section.name = name;
    section.index = elf_ndxscn(scan);
    section.type = header.sh_type;
    section.link = header.sh_link;
    section.info = header.sh_info;
    section.size = header.sh_size;
    const bool readable =
        header.sh_type != SHT_NOBITS && header.sh_size <= kMaxSectionBytes;
    const Elf_Data* data = readable ? elf_rawdata(scan, nullptr) : nullptr;
    if (data != nullptr && data->d_buf != nullptr) {
      section.data = {static_cast<const char*>(data->d_buf), data->d_size};
    }
    visit(section);
  }
}

std::optional<ElfFile::Section> ElfFile::Find(std::string_view name) const {
  std::optional<Section> found;
  ForEach([&](const Section& section) {
    if (!found.has_value() && section.name == name) found = section;
  });
  return found;
}

}  // namespace bpfgrant::daemon
