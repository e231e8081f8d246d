#include "daemon/sockets.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "daemon/stored_names.h"
#include "spdlog/spdlog.h"

namespace bpfgrant::daemon {
namespace {

constexpr char kBrokerName[] = "broker.sock";
constexpr char kControlName[] = "control.sock";
constexpr int kBacklog = 1024;

absl::Status Failed(absl::string_view what) {
  return absl::InternalError(absl::StrCat(what, ": ", std::strerror(errno)));
}

// Whether it came out of the store; then it is in `sockets`.
bool TakeStored(int fd, const std::string& name, Sockets& sockets) {
  switch (WhoStored(name)) {
    case StoredBy::kBroker:
      sockets.brokers.emplace(name, UniqueFd(fd));
      return true;
    case StoredBy::kLoader:
      sockets.loaders.emplace(name, UniqueFd(fd));
      return true;
    case StoredBy::kNobody:
      break;
  }
  return false;
}

absl::StatusOr<Sockets> Adopt(int count,
                              const std::vector<std::string>& names) {
  Sockets sockets;
  for (int fd = SD_LISTEN_FDS_START; fd < SD_LISTEN_FDS_START + count; ++fd) {
    if (TakeStored(fd, names[fd - SD_LISTEN_FDS_START], sockets)) continue;
    // The first ones are the socket unit's, which come before the store.
    if (!sockets.broker.valid() &&
        sd_is_socket_unix(fd, SOCK_SEQPACKET, 1, nullptr, 0) > 0) {
      sockets.broker.reset(fd);
    } else if (!sockets.control.valid() &&
               sd_is_socket_unix(fd, SOCK_STREAM, 1, nullptr, 0) > 0) {
      sockets.control.reset(fd);
    } else if (std::getenv("FDSTORE") != nullptr) {
      // Of another version of this daemon, or nobody's: it must not keep this
      // one from starting. The broker lets go of what it does not know.
      const std::string& name = names[fd - SD_LISTEN_FDS_START];
      spdlog::warn("the service manager kept '{}', which nobody knows", name);
      sockets.brokers.emplace(name, UniqueFd(fd));
      continue;
    } else {
      return absl::InvalidArgumentError(absl::StrCat(
          "fd ", fd,
          " from the service manager is neither a listening "
          "SOCK_SEQPACKET nor a listening SOCK_STREAM Unix socket"));
    }
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  }
  if (!sockets.broker.valid() || !sockets.control.valid()) {
    return absl::InvalidArgumentError(
        "the service manager passed one socket; both broker.sock and "
        "control.sock are needed");
  }
  return sockets;
}

absl::StatusOr<UniqueFd> OpenDirectory(const std::string& path) {
  if (path.empty() || path[0] != '/') {
    return absl::InvalidArgumentError(
        absl::StrCat("runtime directory '", path, "' is not absolute"));
  }
  if (mkdir(path.c_str(), 0755) < 0 && errno != EEXIST) return Failed(path);
  UniqueFd directory(
      open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!directory.valid()) return Failed(path);
  struct stat status {};
  if (fstat(directory.get(), &status) < 0) return Failed(path);
  if (status.st_uid != geteuid() || (status.st_mode & 022) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": must be root's and writable by nobody else"));
  }
  return directory;
}

absl::StatusOr<UniqueFd> Lock(const UniqueFd& directory,
                              const std::string& path) {
  UniqueFd lock(openat(directory.get(), "lock",
                       O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock.valid()) return Failed(absl::StrCat(path, "/lock"));
  if (flock(lock.get(), LOCK_EX | LOCK_NB) < 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": another bpfgrantd runs here"));
  }
  return lock;
}

absl::StatusOr<UniqueFd> Bind(const UniqueFd& directory, const char* name,
                              int type) {
  UniqueFd socket(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) return Failed("socket");
  // Through the directory that was checked, wherever its path points by now.
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path, sizeof(address.sun_path),
                "/proc/self/fd/%d/%s", directory.get(), name);
  unlinkat(directory.get(), name, 0);
  // The mode has to be right from the start; there are no threads yet that
  // would see the other mask.
  const mode_t mask = umask(0);
  const int bound = bind(socket.get(), reinterpret_cast<sockaddr*>(&address),
                         sizeof(address));
  umask(mask);
  if (bound < 0 || listen(socket.get(), kBacklog) < 0) return Failed(name);
  return socket;
}

}  // namespace

absl::StatusOr<Sockets> OpenSockets(const std::string& runtime_directory,
                                    const Mitigations& mitigations) {
  char** given = nullptr;
  const int passed = sd_listen_fds_with_names(/*unset_environment=*/1, &given);
  if (passed < 0) {
    return absl::InternalError(
        absl::StrCat("sd_listen_fds: ", std::strerror(-passed)));
  }
  std::vector<std::string> names;
  for (int i = 0; i < passed; ++i) {
    names.emplace_back(given[i]);
    free(given[i]);
  }
  free(given);
  if (passed > 0) return Adopt(passed, names);
  Sockets sockets;
  absl::StatusOr<UniqueFd> directory = OpenDirectory(runtime_directory);
  if (!directory.ok()) return directory.status();
  if (mitigations.runtime_directory_lock) {
    absl::StatusOr<UniqueFd> lock = Lock(*directory, runtime_directory);
    if (!lock.ok()) return lock.status();
    sockets.lock = *std::move(lock);
  }
  absl::StatusOr<UniqueFd> broker =
      Bind(*directory, kBrokerName, SOCK_SEQPACKET);
  if (!broker.ok()) return broker.status();
  absl::StatusOr<UniqueFd> control =
      Bind(*directory, kControlName, SOCK_STREAM);
  if (!control.ok()) return control.status();
  sockets.broker = *std::move(broker);
  sockets.control = *std::move(control);
  sockets.directory = *std::move(directory);
  sockets.bound = true;
  return sockets;
}

void RemoveSockets(const Sockets& sockets) {
  if (!sockets.bound) return;
  unlinkat(sockets.directory.get(), kBrokerName, 0);
  unlinkat(sockets.directory.get(), kControlName, 0);
}

}  // namespace bpfgrant::daemon
