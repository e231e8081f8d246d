#include "daemon/loader/btf_file.h"

#include <gelf.h>
#include <libelf.h>
#include <linux/btf.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::daemon {
namespace {

// Kernels have some 6 MiB of it.
constexpr size_t kMaxBtfBytes = size_t{64} << 20;

struct ElfEnd {
  void operator()(Elf* elf) const { elf_end(elf); }
};

absl::Status ErrnoStatus(const char* call) {
  return absl::InternalError(absl::StrCat(call, ": ", std::strerror(errno)));
}

absl::Status TooLarge() {
  return Refuse(v1::REASON_TOO_LARGE, absl::StrCat("its BTF has more than ",
                                                   kMaxBtfBytes >> 20, " MiB"));
}

absl::Status IsNone() {
  return Refuse(v1::REASON_FILE_INVALID,
                "it is neither BTF (as /sys/kernel/btf/vmlinux) nor an ELF "
                "file with a section .BTF (vmlinux, uncompressed)");
}

absl::StatusOr<std::string> ReadWhole(int file, size_t size) {
  if (size > kMaxBtfBytes) return TooLarge();
  std::string bytes(size, '\0');
  size_t done = 0;
  while (done < size) {
    const ssize_t length =
        pread(file, bytes.data() + done, size - done, static_cast<off_t>(done));
    if (length < 0 && errno == EINTR) continue;
    if (length < 0) return ErrnoStatus("read");
    if (length == 0) break;
    done += static_cast<size_t>(length);
  }
  bytes.resize(done);
  return bytes;
}

absl::StatusOr<std::string> ReadSection(int file, size_t file_size) {
  elf_version(EV_CURRENT);
  const std::unique_ptr<Elf, ElfEnd> elf(elf_begin(file, ELF_C_READ, nullptr));
  size_t names = 0;
  if (elf == nullptr || elf_getshdrstrndx(elf.get(), &names) != 0) {
    return IsNone();
  }
  Elf_Scn* section = nullptr;
  while ((section = elf_nextscn(elf.get(), section)) != nullptr) {
    GElf_Shdr header;
    if (gelf_getshdr(section, &header) == nullptr) break;
    const char* name = elf_strptr(elf.get(), names, header.sh_name);
    if (name == nullptr || std::string_view(name) != ".BTF") continue;
    if (header.sh_type == SHT_NOBITS || header.sh_offset > file_size ||
        header.sh_size > file_size - header.sh_offset) {
      return IsNone();
    }
    if (header.sh_size > kMaxBtfBytes) return TooLarge();
    const Elf_Data* data = elf_rawdata(section, nullptr);
    if (data == nullptr || data->d_buf == nullptr) return IsNone();
    return std::string(static_cast<const char*>(data->d_buf), data->d_size);
  }
  return IsNone();
}

// In either order of bytes.
bool IsBtf(const char (&start)[4]) {
  uint16_t magic;
  std::memcpy(&magic, start, sizeof(magic));
  return magic == BTF_MAGIC ||
         magic == static_cast<uint16_t>(BTF_MAGIC << 8 | BTF_MAGIC >> 8);
}

}  // namespace

absl::StatusOr<std::string> ReadBtf(int file) {
  struct stat info {};
  if (fstat(file, &info) < 0) return ErrnoStatus("fstat");
  if (!S_ISREG(info.st_mode)) return IsNone();
  const auto size = static_cast<size_t>(info.st_size);
  char start[4];
  if (pread(file, start, sizeof(start), 0) != sizeof(start)) return IsNone();
  if (IsBtf(start)) return ReadWhole(file, size);
  if (std::memcmp(start, ELFMAG, SELFMAG) != 0) return IsNone();
  return ReadSection(file, size);
}

}  // namespace bpfgrant::daemon
