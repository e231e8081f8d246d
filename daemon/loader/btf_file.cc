#include "daemon/loader/btf_file.h"

#include <elf.h>
#include <linux/btf.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "daemon/loader/elf_file.h"

namespace bpfgrant::daemon {
namespace {

absl::Status ErrnoStatus(const char* call) {
  return absl::InternalError(absl::StrCat(call, ": ", std::strerror(errno)));
}

absl::Status TooLarge() {
  return absl::InvalidArgumentError(
      absl::StrCat("its BTF has more than ", kMaxSectionBytes >> 20, " MiB"));
}

absl::Status IsNone() {
  return absl::InvalidArgumentError(
      "it is neither BTF (as /sys/kernel/btf/vmlinux) nor an ELF "
      "file with a section .BTF (vmlinux, uncompressed)");
}

absl::StatusOr<std::string> ReadWhole(int file, size_t size) {
  // Kernels have some 6 MiB of it.
  if (size > kMaxSectionBytes) return TooLarge();
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

absl::StatusOr<std::string> ReadSection(int file) {
  const auto elf = ElfFile::OfFile(file);
  if (!elf.has_value()) return IsNone();
  const auto section = elf->Find(".BTF");
  if (section.has_value() && section->size > kMaxSectionBytes) {
    return TooLarge();
  }
  if (!section.has_value() || section->data.empty()) return IsNone();
  return std::string(section->data);
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
  return ReadSection(file);
}

}  // namespace bpfgrant::daemon
