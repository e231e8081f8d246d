#include "daemon/loader/loop_child.h"

#include <bpf/bpf.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/loader/child.h"
#include "daemon/loader/loop_object.h"
#include "daemon/process.h"
#include "proto/wire/message_socket.h"
#include "proto/wire/ring.h"

namespace bpfgrant::daemon {
namespace {

// enum bpf_attach_type's BPF_STRUCT_OPS, which Debian 12's headers lack.
constexpr auto kStructOps = static_cast<bpf_attach_type>(44);

bool Say(int socket, const LoopWord& word, int link = -1) {
  const std::string_view bytes(reinterpret_cast<const char*>(&word),
                               sizeof(word));
  std::vector<int> fds;
  if (link >= 0) fds.push_back(link);
  return SendPacket(socket, bytes, fds).ok();
}

[[noreturn]] void Fail(int socket, LoopWord::Step step, int error,
                       LoopWord word = {}) {
  word.kind = LoopWord::kDone;
  word.failed = step;
  word.error = error;
  _exit(Say(socket, word) ? 0 : 1);
}

bool IsRing(int fd) {
  std::array<char, 64> target;
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  const ssize_t length = readlink(link.c_str(), target.data(), target.size());
  return length > 0 &&
         std::string_view(target.data(), length) == "anon_inode:[io_uring]";
}

// The number behind `key` in a ring's fdinfo; 0: it is not there.
uint32_t MaskIn(std::string_view text, std::string_view key) {
  const size_t at = text.find(key);
  if (at == std::string_view::npos) return 0;
  return strtoul(text.data() + at + key.size(), nullptr, 0);
}

// What the kernel itself says of the ring's size: the counts in the shared
// memory are the client's to change.
void ReadGeometry(int ring, LoopWord& word) {
  char path[40];
  snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", ring);
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  std::array<char, 1024> text{};
  const ssize_t length = read(file, text.data(), text.size() - 1);
  close(file);
  if (length <= 0) return;
  word.sq_entries = MaskIn(text.data(), "SqMask:") + 1;
  word.cq_entries = MaskIn(text.data(), "CqMask:") + 1;
}

// All that the ring may do from its enabling on, whoever fills its queue.
int Restrict(int ring, const LoopRights& rights) {
  std::vector<io_uring_restriction> rules;
  const auto add = [&rules](uint16_t kind, uint8_t number) {
    io_uring_restriction rule{};
    rule.opcode = kind;
    rule.sqe_op = number;  // a union with register_op and sqe_flags
    rules.push_back(rule);
  };
  for (const uint8_t number : rights.operations) {
    add(IORING_RESTRICTION_SQE_OP, number);
  }
  // Both kinds, always: on Linux 7.2 a list of one leaves the other open.
  for (const uint8_t number : rights.register_calls) {
    add(IORING_RESTRICTION_REGISTER_OP, number);
  }
  if (rights.request_flags != 0) {
    add(IORING_RESTRICTION_SQE_FLAGS_ALLOWED, rights.request_flags);
  }
  return syscall(SYS_io_uring_register, ring, kRegisterRestrictions,
                 rules.data(), rules.size()) < 0
             ? errno
             : 0;
}

int TakeRing(const LoopAttachment& attachment, int socket,
             const Mitigations& mitigations) {
  const int ring =
      syscall(SYS_pidfd_getfd, attachment.pidfd, attachment.ring, 0);
  if (ring < 0) Fail(socket, LoopWord::kTakeRing, errno);
  if (!IsRing(ring)) Fail(socket, LoopWord::kLookAtRing, ENOTSUP);
  LoopWord word;
  ReadGeometry(ring, word);
  if (word.sq_entries != attachment.loop->sq_entries() ||
      word.cq_entries != attachment.loop->cq_entries()) {
    Fail(socket, LoopWord::kGeometry, EINVAL, word);
  }
  if (mitigations.loop_restrictions) {
    const int error = Restrict(ring, *attachment.rights);
    if (error != 0) Fail(socket, LoopWord::kRestrict, error);
  }
  return ring;
}

bool WaitForTurn(int socket) {
  char turn;
  ssize_t length;
  do {
    length = recv(socket, &turn, sizeof(turn), 0);
  } while (length < 0 && errno == EINTR);
  return length == sizeof(turn);
}

// What a process's status says, which everyone may read: the folder of one that
// made itself undumpable belongs to root, and its fds and calls are the owner's
// to see.
struct ProcessStatus {
  std::array<unsigned int, 4> uids{};
  unsigned int fd_table = 0;

  bool BelongsTo(uint32_t uid) const {
    return std::find(uids.begin(), uids.end(), uid) != uids.end();
  }
};

std::optional<ProcessStatus> ReadStatus(long pid) {
  const std::string path = "/proc/" + std::to_string(pid) + "/status";
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return std::nullopt;
  std::array<char, 2048> text{};
  const ssize_t length = read(file, text.data(), text.size() - 1);
  close(file);
  if (length <= 0) return std::nullopt;
  const char* uids = strstr(text.data(), "\nUid:");
  const char* size = strstr(text.data(), "\nFDSize:");
  ProcessStatus status;
  auto& [real, effective, saved, file_system] = status.uids;
  if (uids == nullptr || size == nullptr ||
      sscanf(uids, "\nUid: %u %u %u %u", &real, &effective, &saved,
             &file_system) != 4 ||
      sscanf(size, "\nFDSize: %u", &status.fd_table) != 1) {
    return std::nullopt;
  }
  return status;
}

bool HasRing(long pid, unsigned int fd_table) {
  const auto pidfd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  if (pidfd < 0) return false;
  bool found = false;
  for (unsigned int i = 0; i < fd_table && !found; ++i) {
    const auto fd = static_cast<int>(syscall(SYS_pidfd_getfd, pidfd, i, 0));
    if (fd < 0) continue;
    found = IsRing(fd);
    close(fd);
  }
  close(pidfd);
  return found;
}

template <typename Visit>
void ForEachProcess(const Visit& visit) {
  DIR* directory = opendir("/proc");
  if (directory == nullptr) return;
  while (const dirent* entry = readdir(directory)) {
    const long pid = strtol(entry->d_name, nullptr, 10);
    if (pid > 0) visit(pid);
  }
  closedir(directory);
}

}  // namespace

void AttachLoopAndExit(const LoopAttachment& attachment, int socket,
                       pid_t parent, const Mitigations& mitigations) {
  LiveNoLongerThan(parent);
  CloseAllBut({attachment.structure, attachment.pidfd, socket});
  const int ring = TakeRing(attachment, socket, mitigations);
  // Where the structure says it is.
  if (dup2(ring, kRingNumber) < 0) Fail(socket, LoopWord::kTakeRing, errno);
  close(ring);
  close(attachment.pidfd);
  if (!Say(socket, LoopWord{}) || !WaitForTurn(socket)) _exit(1);
  const int link =
      bpf_link_create(attachment.structure, 0, kStructOps, nullptr);
  if (link < 0) Fail(socket, LoopWord::kLink, errno);
  LoopWord done;
  done.kind = LoopWord::kDone;
  _exit(Say(socket, done, link) ? 0 : 1);
}

void DetachLoopAndExit(int link, int socket, pid_t parent) {
  LiveNoLongerThan(parent);
  CloseAllBut({link, socket});
  if (bpf_link_detach(link) < 0) Fail(socket, LoopWord::kLink, errno);
  LoopWord done;
  done.kind = LoopWord::kDone;
  _exit(Say(socket, done) ? 0 : 1);
}

std::optional<uint32_t> UserOf(int pidfd) {
  const std::optional<pid_t> pid = PidOf(pidfd);
  if (!pid.has_value()) return std::nullopt;
  const auto status = ReadStatus(*pid);
  // Its number may be another's by now, unless it is still there.
  if (!status.has_value() || !IsAlive(pidfd)) return std::nullopt;
  return status->uids[1];
}

void KillOwnersOfRingsAndExit(uint32_t uid, bool all) {
  CloseAllBut({});
  ForEachProcess([=](long pid) {
    const auto status = ReadStatus(pid);
    if (!status.has_value() || !status->BelongsTo(uid)) return;
    if (all || HasRing(pid, status->fd_table)) {
      kill(static_cast<pid_t>(pid), SIGKILL);
    }
  });
  _exit(0);
}

}  // namespace bpfgrant::daemon
