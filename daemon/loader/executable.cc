#include "daemon/loader/executable.h"

#include <fcntl.h>
#include <linux/fsverity.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "daemon/loader/digest.h"
#include "daemon/process.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::daemon {
namespace {

// File systems whose files are not written while they are executed, and that no
// user serves.
constexpr long kTrusted[] = {
    EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC,
    F2FS_SUPER_MAGIC, SQUASHFS_MAGIC,  EROFS_SUPER_MAGIC_V1,
};

// More than a tick, by which the kernel counts a file's times: a file that was
// changed so long ago shows it when it is changed again.
constexpr auto kTick = std::chrono::milliseconds(50);

absl::Status Errno(absl::string_view what) {
  return absl::InternalError(absl::StrCat(what, ": ", std::strerror(errno)));
}

std::string OwnLink(const UniqueFd& fd) {
  return absl::StrCat("/proc/self/fd/", fd.get());
}

absl::StatusOr<std::string> PathOf(const UniqueFd& file) {
  std::array<char, 4096> path;  // PATH_MAX
  const ssize_t length =
      readlink(OwnLink(file).c_str(), path.data(), path.size());
  if (length < 0) return Errno("its path");
  if (static_cast<size_t>(length) == path.size()) {
    return absl::InternalError("its path is too long");
  }
  return std::string(path.data(), static_cast<size_t>(length));
}

// Opens what is at an absolute path, through no symbolic link. By one name
// after the other: openat2(2), which could do it at once, is taken away where a
// service manager keeps services from making setuid files (RestrictSUIDSGID=).
UniqueFd OpenWithoutLinks(const std::string& path) {
  UniqueFd found(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  for (const auto name : absl::StrSplit(path, '/', absl::SkipEmpty())) {
    if (!found.valid() || name == "..") return UniqueFd();
    // Of a link this is the link, in which there is nothing.
    found.reset(openat(found.get(), std::string(name).c_str(),
                       O_PATH | O_NOFOLLOW | O_CLOEXEC));
  }
  return found;
}

bool IsTheFile(const UniqueFd& file, const std::string& path) {
  const UniqueFd found = OpenWithoutLinks(path);
  struct stat here {
  }, there{};
  return found.valid() && fstat(file.get(), &here) == 0 &&
         fstat(found.get(), &there) == 0 && here.st_dev == there.st_dev &&
         here.st_ino == there.st_ino;
}

absl::StatusOr<UniqueFd> OpenToRead(const UniqueFd& file,
                                    const Mitigations& mitigations) {
  struct statfs system {};
  if (fstatfs(file.get(), &system) < 0) return Errno("its file system");
  if (mitigations.executable_filesystem &&
      std::find(std::begin(kTrusted), std::end(kTrusted), system.f_type) ==
          std::end(kTrusted)) {
    return absl::InternalError(
        "it is on a file system on which it could change while it is executed");
  }
  UniqueFd readable(open(OwnLink(file).c_str(), O_RDONLY | O_CLOEXEC));
  if (!readable.valid()) return Errno("reading it");
  return readable;
}

absl::StatusOr<std::string> DigestOf(const UniqueFd& file) {
  struct stat status {};
  if (fstat(file.get(), &status) < 0) return Errno("fstat");
  const auto size = static_cast<size_t>(status.st_size);
  if (size > kMaxExecutableBytes) {
    return absl::InternalError(
        absl::StrCat("it has ", size, " bytes, more than the ",
                     kMaxExecutableBytes, " that are read for a digest"));
  }
  void* bytes = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (bytes == MAP_FAILED) return Errno("reading it");
  const std::string digest =
      Sha256({std::string_view(static_cast<const char*>(bytes), size)});
  munmap(bytes, size);
  if (digest.empty()) return absl::InternalError("OpenSSL has no SHA-256");
  return digest;
}

// "sha256:" and the digest; empty: it has none.
absl::StatusOr<std::string> VerityOf(const UniqueFd& file) {
  constexpr size_t kMaxDigest = 64;
  alignas(fsverity_digest)
      std::array<char, sizeof(fsverity_digest) + kMaxDigest>
          buffer{};
  auto* digest = reinterpret_cast<fsverity_digest*>(buffer.data());
  digest->digest_size = kMaxDigest;
  if (ioctl(file.get(), FS_IOC_MEASURE_VERITY, digest) < 0) {
    if (errno == ENODATA || errno == ENOTTY || errno == EOPNOTSUPP) return "";
    return Errno("its fs-verity digest");
  }
  const absl::string_view bytes(buffer.data() + sizeof(fsverity_digest),
                                digest->digest_size);
  return absl::StrCat(digest->digest_algorithm == FS_VERITY_HASH_ALG_SHA256
                          ? "sha256:"
                          : "other:",
                      absl::BytesToHexString(bytes));
}

// What is not known, and the first reason why.
void Note(const absl::Status& why, ExecutableReply& facts) {
  if (facts.unknown().empty()) facts.set_unknown(std::string(why.message()));
}

void AddPath(const UniqueFd& file, const Mitigations& mitigations,
             ExecutableReply& facts) {
  const absl::StatusOr<std::string> path = PathOf(file);
  if (!path.ok()) return Note(path.status(), facts);
  if (mitigations.executable_path_check && !IsTheFile(file, *path)) {
    return Note(
        absl::InternalError(absl::StrCat("bpfgrantd finds another file at ",
                                         absl::CEscape(*path), ", or none")),
        facts);
  }
  facts.set_path(*path);
}

void AddDigests(const ExecutableRequest& wanted, const UniqueFd& file,
                const Mitigations& mitigations, ExecutableReply& facts) {
  const absl::StatusOr<UniqueFd> readable = OpenToRead(file, mitigations);
  if (!readable.ok()) return Note(readable.status(), facts);
  if (wanted.sha256()) {
    const absl::StatusOr<std::string> digest = DigestOf(*readable);
    if (digest.ok()) {
      facts.set_sha256(*digest);
    } else {
      Note(digest.status(), facts);
    }
  }
  if (!wanted.fsverity()) return;
  const absl::StatusOr<std::string> verity = VerityOf(*readable);
  if (verity.ok()) {
    facts.set_fsverity(*verity);
  } else {
    Note(verity.status(), facts);
  }
}

ExecutableReply Unknown(const absl::Status& why) {
  ExecutableReply nothing;
  Note(why, nothing);
  return nothing;
}

// Which file it is, and in which state.
struct State {
  dev_t device = 0;
  ino_t number = 0;
  off_t size = 0;
  std::chrono::nanoseconds changed{0};  // of its bytes or its inode
  bool operator==(const State&) const = default;
};

absl::StatusOr<State> StateOf(const UniqueFd& file) {
  struct stat status {};
  if (fstat(file.get(), &status) < 0) return Errno("fstat");
  return State{status.st_dev, status.st_ino, status.st_size,
               std::chrono::seconds(status.st_ctim.tv_sec) +
                   std::chrono::nanoseconds(status.st_ctim.tv_nsec)};
}

// The file that the process executes at this moment.
absl::StatusOr<UniqueFd> OpenExecutable(int pidfd) {
  const absl::Status gone = absl::InternalError("the process is gone");
  const std::optional<pid_t> pid = PidOf(pidfd);
  if (!pid.has_value()) return gone;
  UniqueFd file(
      open(absl::StrCat("/proc/", *pid, "/exe").c_str(), O_PATH | O_CLOEXEC));
  const absl::Status opened =
      file.valid() ? absl::OkStatus() : Errno("/proc/PID/exe");
  // Until now the number was that process's.
  if (!IsAlive(pidfd)) return gone;
  if (!opened.ok()) return opened;
  return file;
}

bool ChangedJustNow(const State& state) {
  return std::chrono::system_clock::now().time_since_epoch() - state.changed <
         kTick;
}

// Whether the process executes the same file still, unchanged.
bool IsStill(const State& state, int pidfd) {
  const auto now = OpenExecutable(pidfd);
  if (!now.ok()) return false;
  const auto then = StateOf(*now);
  return then.ok() && *then == state;
}

}  // namespace

ExecutableReply ReadExecutable(const ExecutableRequest& wanted, int pidfd,
                               const Mitigations& mitigations) {
  const absl::StatusOr<UniqueFd> file = OpenExecutable(pidfd);
  if (!file.ok()) return Unknown(file.status());
  const absl::StatusOr<State> before = StateOf(*file);
  if (!before.ok()) return Unknown(before.status());
  const bool digests = wanted.sha256() || wanted.fsverity();
  if (digests && ChangedJustNow(*before)) {
    return Unknown(absl::InternalError("it was changed just now"));
  }
  ExecutableReply facts;
  if (wanted.path()) AddPath(*file, mitigations, facts);
  if (digests) AddDigests(wanted, *file, mitigations, facts);
  if (!IsStill(*before, pidfd)) {
    return Unknown(absl::InternalError(
        "the process executed another file meanwhile, or it was changed"));
  }
  return facts;
}

}  // namespace bpfgrant::daemon
