#include "daemon/loader/safe_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant::daemon {
namespace {

absl::Status ErrnoStatus(int error, absl::string_view what) {
  if (error == ENOENT) {
    return absl::NotFoundError(absl::StrCat(what, ": there is no such file"));
  }
  return absl::InternalError(absl::StrCat(what, ": ", std::strerror(error)));
}

absl::Status Unsafe(absl::string_view path, absl::string_view why) {
  return Refuse(v1::REASON_FILE_UNSAFE, absl::StrCat(path, ": ", why));
}

// Why others than root (and this process's own user) have a say in something
// of this owner and mode; nothing if they have none.
std::optional<std::string> Untrusted(const struct stat& info) {
  if (info.st_uid != 0 && info.st_uid != geteuid()) {
    return absl::StrCat("it belongs to uid ", info.st_uid, ", not to root");
  }
  if ((info.st_mode & S_IWOTH) != 0) return "everybody can write it";
  if ((info.st_mode & S_IWGRP) != 0) return "its group can write it";
  return std::nullopt;
}

absl::Status JudgeDirectory(int fd, const std::string& path, bool last) {
  struct stat info;
  if (fstat(fd, &info) < 0) return ErrnoStatus(errno, path);
  auto why = Untrusted(info);
  if (!why.has_value()) return absl::OkStatus();
  // In a sticky folder others can add, but not rename or remove what root put
  // there; the component below is judged in its turn. Not so for the last one:
  // there, adding a file is enough to override another folder's.
  const bool trusted_owner = info.st_uid == 0 || info.st_uid == geteuid();
  if (trusted_owner && !last && (info.st_mode & S_ISVTX) != 0) {
    return absl::OkStatus();
  }
  return Unsafe(path, *why);
}

absl::Status JudgeFile(const struct stat& info, const std::string& path) {
  if (!S_ISREG(info.st_mode)) return Unsafe(path, "it is not a regular file");
  if (const auto why = Untrusted(info); why.has_value()) {
    return Unsafe(path, *why);
  }
  // Another name of the same file can stand in a folder that nobody judged.
  if (info.st_nlink != 1) {
    return Unsafe(path, absl::StrCat("it has ", info.st_nlink,
                                     " names (hard links), or none any more"));
  }
  return absl::OkStatus();
}

// Keeps writers out while `fd` is open, by a lease (fcntl(2)): times and sizes
// tell of a write(2) when it begins only, not of one that is under way. A
// writer that comes now waits until `fd` is closed. File systems without leases
// are left at times and sizes.
absl::Status KeepWritersOut(int fd, const std::string& path) {
  // A waiting writer is told of by a signal; SIGIO would end this process,
  // SIGURG is ignored unless somebody asks for it.
  if (fcntl(fd, F_SETSIG, SIGURG) < 0) return absl::OkStatus();
  if (fcntl(fd, F_SETLEASE, F_RDLCK) < 0 && errno == EAGAIN) {
    return Unsafe(path, "somebody has it open for writing");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadToEnd(int fd, size_t limit,
                                      const std::string& path) {
  std::string bytes;
  // One byte more than may come, so that one too many is seen.
  while (bytes.size() <= limit) {
    const size_t used = bytes.size();
    const size_t room = std::min<size_t>(limit + 1 - used, 256 * 1024);
    bytes.resize(used + room);
    ssize_t length;
    do {
      length = read(fd, bytes.data() + used, room);
    } while (length < 0 && errno == EINTR);
    const int error = errno;
    bytes.resize(used + (length > 0 ? static_cast<size_t>(length) : 0));
    if (length < 0) return ErrnoStatus(error, path);
    if (length == 0) return bytes;
  }
  return Refuse(v1::REASON_TOO_LARGE,
                absl::StrCat(path, ": more than ", limit, " bytes"));
}

absl::Status CheckName(const std::string& name, const std::string& path) {
  if (name.empty() || name == "." || name == ".." ||
      name.find('/') != std::string::npos ||
      name.find('\0') != std::string::npos) {
    return Refuse(v1::REASON_INVALID_ARGUMENT,
                  absl::StrCat(path, ": not a plain file name"));
  }
  return absl::OkStatus();
}

bool SameContents(const struct stat& before, const struct stat& after) {
  return before.st_size == after.st_size &&
         before.st_mtim.tv_sec == after.st_mtim.tv_sec &&
         before.st_mtim.tv_nsec == after.st_mtim.tv_nsec &&
         before.st_ctim.tv_sec == after.st_ctim.tv_sec &&
         before.st_ctim.tv_nsec == after.st_ctim.tv_nsec;
}

absl::Status WriteAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd, bytes.data(), bytes.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      return ErrnoStatus(errno, "writing a memfd");
    }
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

}  // namespace

SealedBytes::SealedBytes(SealedBytes&& other) noexcept
    : fd_(std::move(other.fd_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

SealedBytes& SealedBytes::operator=(SealedBytes&& other) noexcept {
  if (this == &other) return *this;
  Unmap();
  fd_ = std::move(other.fd_);
  data_ = std::exchange(other.data_, nullptr);
  size_ = std::exchange(other.size_, 0);
  return *this;
}

SealedBytes::~SealedBytes() { Unmap(); }

void SealedBytes::Unmap() {
  if (data_ != nullptr) munmap(const_cast<char*>(data_), size_);
  data_ = nullptr;
  size_ = 0;
}

UniqueFd SealedBytes::TakeFd() && {
  Unmap();
  return std::move(fd_);
}

absl::StatusOr<SealedBytes> SealedBytes::Copy(std::string_view bytes,
                                              const std::string& name) {
  SealedBytes sealed;
  sealed.fd_.reset(memfd_create(name.substr(0, 200).c_str(),
                                MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!sealed.fd_.valid()) return ErrnoStatus(errno, "memfd_create");
  if (auto status = WriteAll(sealed.fd_.get(), bytes); !status.ok()) {
    return status;
  }
  if (fcntl(sealed.fd_.get(), F_ADD_SEALS,
            F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0) {
    return ErrnoStatus(errno, "sealing a memfd");
  }
  if (bytes.empty()) return sealed;
  void* data =
      mmap(nullptr, bytes.size(), PROT_READ, MAP_PRIVATE, sealed.fd_.get(), 0);
  if (data == MAP_FAILED) return ErrnoStatus(errno, "mapping a memfd");
  sealed.data_ = static_cast<const char*>(data);
  sealed.size_ = bytes.size();
  return sealed;
}

absl::StatusOr<SafeDirectory> SafeDirectory::Open(
    const std::string& path, const Mitigations& mitigations) {
  if (!path.starts_with('/')) {
    return Refuse(
        v1::REASON_INVALID_ARGUMENT,
        absl::StrCat(absl::CHexEscape(path), ": the path is not absolute"));
  }
  if (!mitigations.file_safety) {
    UniqueFd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd.valid()) return ErrnoStatus(errno, absl::CHexEscape(path));
    return SafeDirectory(std::move(fd), path, false);
  }
  const std::vector<std::string> components =
      absl::StrSplit(path, '/', absl::SkipEmpty());
  UniqueFd fd(open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return ErrnoStatus(errno, "/");
  std::string walked;
  if (auto status = JudgeDirectory(fd.get(), "/", components.empty());
      !status.ok()) {
    return status;
  }
  for (size_t i = 0; i < components.size(); ++i) {
    const std::string& component = components[i];
    absl::StrAppend(&walked, "/", absl::CHexEscape(component));
    if (component == "." || component == "..") {
      return Unsafe(walked, "'.' and '..' have no place in it");
    }
    UniqueFd next(openat(fd.get(), component.c_str(),
                         O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!next.valid()) {
      const int error = errno;
      // ENOTDIR is what O_DIRECTORY says of a symbolic link, too.
      if (error == ENOTDIR || error == ELOOP) {
        return Unsafe(walked, "it is a symbolic link, or no folder");
      }
      return ErrnoStatus(error, walked);
    }
    if (auto status =
            JudgeDirectory(next.get(), walked, i + 1 == components.size());
        !status.ok()) {
      return status;
    }
    fd = std::move(next);
  }
  return SafeDirectory(std::move(fd), path, true);
}

absl::StatusOr<std::vector<std::string>> SafeDirectory::List(
    std::string_view suffix) const {
  // fdopendir takes the fd over, and its position is shared by duplicates.
  const int own = openat(fd_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (own < 0) return ErrnoStatus(errno, path_);
  DIR* raw = fdopendir(own);
  if (raw == nullptr) {
    const int error = errno;
    close(own);
    return ErrnoStatus(error, path_);
  }
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(raw, closedir);
  std::vector<std::string> names;
  for (;;) {
    errno = 0;
    const dirent* entry = readdir(directory.get());
    if (entry == nullptr) {
      if (errno != 0) return ErrnoStatus(errno, path_);
      break;
    }
    const std::string_view name = entry->d_name;
    if (name.front() == '.' || !name.ends_with(suffix)) continue;
    if (names.size() == kMaxFilesPerDirectory) {
      return Refuse(v1::REASON_TOO_LARGE,
                    absl::StrCat(path_, ": more than ", kMaxFilesPerDirectory,
                                 " files end in ", std::string(suffix)));
    }
    names.emplace_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<SealedBytes> SafeDirectory::Read(const std::string& name,
                                                size_t limit) const {
  const std::string path = PathOf(name);
  if (auto status = CheckName(name, path); !status.ok()) return status;
  // A plain name cannot lead elsewhere but by being a link itself. O_NONBLOCK:
  // opening a FIFO must not wait for somebody to write it.
  UniqueFd fd(openat(fd_.get(), name.c_str(),
                     O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY |
                         (judged_ ? O_NOFOLLOW : 0)));
  if (!fd.valid()) {
    const int error = errno;
    if (error == ELOOP) return Unsafe(path, "it is a symbolic link");
    if (error == ENXIO) return Unsafe(path, "it is not a regular file");
    return ErrnoStatus(error, path);
  }
  struct stat before;
  if (fstat(fd.get(), &before) < 0) return ErrnoStatus(errno, path);
  if (judged_) {
    if (auto status = JudgeFile(before, path); !status.ok()) return status;
    if (auto status = KeepWritersOut(fd.get(), path); !status.ok()) {
      return status;
    }
    // What was written between the first look and the lease.
    if (fstat(fd.get(), &before) < 0) return ErrnoStatus(errno, path);
  }
  if (before.st_size > 0 && static_cast<size_t>(before.st_size) > limit) {
    return Refuse(v1::REASON_TOO_LARGE,
                  absl::StrCat(path, ": ", before.st_size,
                               " bytes, where at most ", limit, " may be"));
  }
  auto bytes = ReadToEnd(fd.get(), limit, path);
  if (!bytes.ok()) return bytes.status();
  if (judged_) {
    struct stat after;
    if (fstat(fd.get(), &after) < 0) return ErrnoStatus(errno, path);
    if (!SameContents(before, after) ||
        bytes->size() != static_cast<size_t>(before.st_size)) {
      return Unsafe(path, "it changed while it was read");
    }
  }
  return SealedBytes::Copy(*bytes, absl::StrCat("bpfgrant:", name));
}

absl::StatusOr<SafeDirectory> SafeDirectory::OpenFolder(
    const std::string& name) const {
  const std::string path = PathOf(name);
  if (auto status = CheckName(name, path); !status.ok()) return status;
  UniqueFd fd(
      openat(fd_.get(), name.c_str(),
             O_RDONLY | O_DIRECTORY | O_CLOEXEC | (judged_ ? O_NOFOLLOW : 0)));
  if (!fd.valid()) {
    const int error = errno;
    if (error == ENOTDIR || error == ELOOP) {
      return Unsafe(path, "it is a symbolic link, or no folder");
    }
    return ErrnoStatus(error, path);
  }
  if (judged_) {
    if (auto status = JudgeDirectory(fd.get(), path, true); !status.ok()) {
      return status;
    }
  }
  return SafeDirectory(std::move(fd), absl::StrCat(path_, "/", name), judged_);
}

bool SafeDirectory::IsNullLink(const std::string& name) const {
  constexpr std::string_view kNull = "/dev/null";
  struct stat info;
  if (fstatat(fd_.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) < 0 ||
      !S_ISLNK(info.st_mode) ||
      (judged_ && info.st_uid != 0 && info.st_uid != geteuid())) {
    return false;
  }
  std::array<char, kNull.size() + 1> target;
  const ssize_t length =
      readlinkat(fd_.get(), name.c_str(), target.data(), target.size());
  return length >= 0 &&
         std::string_view(target.data(), static_cast<size_t>(length)) == kNull;
}

absl::StatusOr<SafeDirectory> SafeDirectory::Duplicate() const {
  UniqueFd fd(fcntl(fd_.get(), F_DUPFD_CLOEXEC, 0));
  if (!fd.valid()) return ErrnoStatus(errno, path_);
  return SafeDirectory(std::move(fd), path_, judged_);
}

std::string SafeDirectory::PathOf(const std::string& name) const {
  return absl::CHexEscape(
      absl::StrCat(path_, path_.ends_with('/') ? "" : "/", name));
}

}  // namespace bpfgrant::daemon
