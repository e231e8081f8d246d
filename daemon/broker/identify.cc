#include "daemon/broker/identify.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "daemon/broker/location.h"
#include "daemon/process.h"
#include "proto/refusal/refusal.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77  // include/uapi/asm-generic/socket.h, Linux 6.5
#endif

namespace bpfgrant::broker {
namespace {

constexpr char kNoExecutable[] = "no rule asked for it yet";

absl::Status Unnamed(absl::string_view what, int error) {
  // Our own shortage is no fault of the peer's.
  const bool busy = error == EMFILE || error == ENFILE || error == ENOMEM;
  return Refuse(busy ? v1::REASON_BUSY : v1::REASON_PEER_UNNAMED,
                absl::StrCat(what, ": ", std::strerror(error)));
}

absl::StatusOr<ucred> PeerCredentials(int socket) {
  ucred credentials{};
  socklen_t length = sizeof(credentials);
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0) {
    return Unnamed("SO_PEERCRED", errno);
  }
  return credentials;
}

absl::Status ReadGroups(int socket, std::vector<gid_t>& groups) {
  groups.resize(32);
  for (;;) {
    socklen_t length = static_cast<socklen_t>(groups.size() * sizeof(gid_t));
    if (getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &length) ==
        0) {
      groups.resize(length / sizeof(gid_t));
      groups.shrink_to_fit();
      return absl::OkStatus();
    }
    // ERANGE says how much room it takes; the kernel's most is 65536 groups.
    if (errno != ERANGE || length <= groups.size() * sizeof(gid_t)) {
      return Unnamed("SO_PEERGROUPS", errno);
    }
    groups.resize(length / sizeof(gid_t));
  }
}

absl::Status OpenPidfd(int socket, IdentifyBy how, Peer& peer) {
  if (how == IdentifyBy::kBest) {
    int pidfd = -1;
    socklen_t length = sizeof(pidfd);
    if (getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &length) == 0) {
      peer.pidfd = UniqueFd(pidfd);  // close-on-exec by the kernel
      return absl::OkStatus();
    }
    if (errno != ENOPROTOOPT) return Unnamed("SO_PEERPIDFD", errno);
  }
  peer.pidfd = UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, peer.pid, 0)));
  if (!peer.pidfd.valid()) return Unnamed("pidfd_open", errno);
  peer.needs_nonce = true;
  return absl::OkStatus();
}

// Empty: it has none, or there is no security module that has labels. nullopt:
// the kernel did not say.
std::optional<std::string> ReadLabel(int socket) {
  std::string label(256, '\0');
  for (;;) {
    socklen_t length = static_cast<socklen_t>(label.size());
    if (getsockopt(socket, SOL_SOCKET, SO_PEERSEC, label.data(), &length) ==
        0) {
      label.resize(std::min<size_t>(length, label.size()));
      while (!label.empty() && label.back() == '\0') label.pop_back();
      return label;
    }
    if (errno == ENOPROTOOPT) return "";
    // ERANGE says how much room it takes.
    if (errno != ERANGE || length <= label.size()) return std::nullopt;
    label.resize(length);
  }
}

// The numbers behind `name` in /proc/PID/status.
std::vector<uint32_t> Numbers(const std::string& status,
                              std::string_view name) {
  std::istringstream lines(status);
  std::vector<uint32_t> numbers;
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(name)) continue;
    std::istringstream words(line.substr(name.size()));
    for (uint32_t number; words >> number;) numbers.push_back(number);
  }
  return numbers;
}

// A number of /proc/sys; 65534 if it cannot be read, as the kernel has it
// unless told otherwise.
uint32_t OverflowId(const char* file) {
  uint32_t id = 65534;
  std::ifstream(file) >> id;
  return id;
}

// Whether every id there is has a number in this user namespace.
bool IsWhole(const char* map) {
  std::ifstream file(map);
  uint32_t inside = 1;
  uint32_t outside = 1;
  uint32_t count = 0;
  return file >> inside >> outside >> count && inside == 0 && outside == 0 &&
         count == UINT32_MAX;
}

// An id that this user namespace has no number for is told as another's, which
// somebody else may have: "nobody".
bool HasUnmappedIds(const policy::Subject& subject) {
  static const uint32_t user = OverflowId("/proc/sys/kernel/overflowuid");
  static const uint32_t group = OverflowId("/proc/sys/kernel/overflowgid");
  if (subject.uid == user && !IsWhole("/proc/self/uid_map")) return true;
  return (subject.gid == group ||
          std::find(subject.groups.begin(), subject.groups.end(), group) !=
              subject.groups.end()) &&
         !IsWhole("/proc/self/gid_map");
}

}  // namespace

bool IsAlive(const UniqueFd& pidfd) {
  pollfd watch{pidfd.get(), POLLIN, 0};
  return poll(&watch, 1, 0) == 0;
}

absl::StatusOr<uid_t> PeerUid(int socket) {
  const absl::StatusOr<ucred> credentials = PeerCredentials(socket);
  if (!credentials.ok()) return credentials.status();
  return credentials->uid;
}

absl::StatusOr<Peer> Identify(int socket, IdentifyBy how,
                              const daemon::Mitigations& mitigations) {
  const absl::StatusOr<ucred> credentials = PeerCredentials(socket);
  if (!credentials.ok()) return credentials.status();
  // A pid of 0 is a process that this pid namespace has no number for; ids of
  // -1 are those of no connection at all.
  if (credentials->pid <= 0 || credentials->uid == static_cast<uid_t>(-1) ||
      credentials->gid == static_cast<gid_t>(-1)) {
    return Refuse(v1::REASON_PEER_UNNAMED,
                  "the kernel has no pid or no uid for the process that "
                  "connected (another pid or user namespace?)");
  }
  Peer peer;
  peer.pid = credentials->pid;
  peer.subject.uid = credentials->uid;
  peer.subject.gid = credentials->gid;
  if (absl::Status status = ReadGroups(socket, peer.subject.groups);
      !status.ok()) {
    return status;
  }
  if (mitigations.unmapped_ids_refused && HasUnmappedIds(peer.subject)) {
    return Refuse(v1::REASON_PEER_UNNAMED,
                  "the process that connected may have a user or group that "
                  "this user namespace has no number for");
  }
  if (absl::Status status = OpenPidfd(socket, how, peer); !status.ok()) {
    return status;
  }
  peer.subject.label = ReadLabel(socket);
  peer.subject.executable.unknown = kNoExecutable;
  peer.subject.location = ReadLocation(peer.pidfd.get(), peer.pid, mitigations);
  return peer;
}

absl::StatusOr<Peer> IdentifyAgain(int socket, UniqueFd pidfd, IdentifyBy how,
                                   const daemon::Mitigations& mitigations) {
  absl::StatusOr<Peer> identified = Identify(socket, how, mitigations);
  if (!identified.ok()) return identified;
  Peer& peer = *identified;
  if (peer.needs_nonce) {
    // By number it may be another process by now.
    if (!pidfd.valid()) {
      return Refuse(v1::REASON_PEER_UNNAMED, "its pidfd was not kept");
    }
    peer.pidfd = std::move(pidfd);
  }
  if (!IsAlive(peer.pidfd)) {
    return Refuse(v1::REASON_PEER_UNNAMED, "its process has exited");
  }
  peer.subject.location.reset();
  return identified;
}

absl::StatusOr<Peer> IdentifyProcess(pid_t pid,
                                     const daemon::Mitigations& mitigations) {
  Peer process;
  process.pid = pid;
  process.pidfd = UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  const std::optional<pid_t> number = daemon::PidOf(process.pidfd.get());
  std::ifstream file(absl::StrCat("/proc/", number.value_or(-1), "/status"));
  const std::string status(std::istreambuf_iterator<char>(file), {});
  // Real, effective, saved, and that of file accesses.
  const std::vector<uint32_t> uids = Numbers(status, "Uid:");
  const std::vector<uint32_t> gids = Numbers(status, "Gid:");
  policy::Subject& subject = process.subject;
  subject.location = ReadLocation(process.pidfd.get(), pid, mitigations);
  if (!process.pidfd.valid() || !IsAlive(process.pidfd) || uids.size() != 4 ||
      gids.size() != 4) {
    return Refuse(
        v1::REASON_INVALID_ARGUMENT,
        absl::StrCat("there is no process ", pid, " that bpfgrantd can see"));
  }
  subject.uid = uids[1];
  subject.gid = gids[1];
  subject.groups = Numbers(status, "Groups:");
  subject.executable.unknown = kNoExecutable;
  return process;
}

}  // namespace bpfgrant::broker
