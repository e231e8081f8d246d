// An ELF file section by section. It may hold anything: what is not there, or
// would reach beyond the file, is not found.

#ifndef DAEMON_LOADER_ELF_FILE_H_
#define DAEMON_LOADER_ELF_FILE_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

struct Elf;

namespace bpfgrant::daemon {

inline constexpr size_t kMaxSectionBytes = size_t{64} << 20;

class ElfFile {
 public:
  struct Section {
    std::string name;
    size_t index = 0;
    size_t type = 0;  // SHT_*
    size_t link = 0;
    size_t info = 0;
    size_t size = 0;
    // As in the file, and as long as the ElfFile. Nothing of SHT_NOBITS and of
    // what is larger than kMaxSectionBytes.
    std::string_view data;
  };

  // Nothing: `bytes`, which must live as long, or the open file, is no ELF
  // file.
  static std::optional<ElfFile> OfBytes(std::string_view bytes);
  static std::optional<ElfFile> OfFile(int file);

  // In the file's order.
  void ForEach(const std::function<void(const Section&)>& visit) const;
  // The first of that name.
  std::optional<Section> Find(std::string_view name) const;

 private:
  struct End {
    void operator()(Elf* elf) const;
  };
  explicit ElfFile(Elf* elf) : elf_(elf) {}

  std::unique_ptr<Elf, End> elf_;
};

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_ELF_FILE_H_
