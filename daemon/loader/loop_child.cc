#include "daemon/loader/loop_child.h"

#include <bpf/bpf.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/io_uring.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/loader/loop_object.h"
#include "proto/wire/message_socket.h"
#include "proto/wire/ring.h"

namespace bpfgrant::daemon {
namespace {

// enum bpf_attach_type's BPF_STRUCT_OPS, which Debian 12's headers lack.
constexpr auto kStructOps = static_cast<bpf_attach_type>(44);

void LiveNoLongerThan(pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
}

// Others must not live on because this child hangs: the loader's socket above
// all.
void CloseAllBut(std::vector<int> kept) {
  std::sort(kept.begin(), kept.end());
  unsigned int first = 0;
  for (const int fd : kept) {
    const auto number = static_cast<unsigned int>(fd);
    if (number > first) syscall(SYS_close_range, first, number - 1, 0);
    first = number + 1;
  }
  syscall(SYS_close_range, first, ~0U, 0);
}

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
  char path[32];
  snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
  const ssize_t length = readlink(path, target.data(), target.size());
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

// Whether a thread is in one of the two calls (proc(5), /proc/PID/syscall).
bool IsBusyWithRing(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return false;
  std::array<char, 64> text{};
  const ssize_t length = read(file, text.data(), text.size() - 1);
  close(file);
  if (length <= 0) return false;
  const long call = strtol(text.data(), nullptr, 10);
  return call == SYS_io_uring_enter || call == SYS_io_uring_register;
}

// Whether one of a process's four uids is `uid`. By what its status says: the
// folder of a process that made itself undumpable belongs to root.
bool BelongsTo(const std::string& folder, uint32_t uid) {
  const int file = open((folder + "/status").c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return false;
  std::array<char, 2048> text{};
  const ssize_t length = read(file, text.data(), text.size() - 1);
  close(file);
  const char* line = length <= 0 ? nullptr : strstr(text.data(), "\nUid:");
  if (line == nullptr) return false;
  std::array<unsigned int, 4> ids{};
  if (sscanf(line, "\nUid: %u %u %u %u", &ids[0], &ids[1], &ids[2], &ids[3]) !=
      4) {
    return false;
  }
  return std::find(ids.begin(), ids.end(), uid) != ids.end();
}

template <typename Visit>
void ForEachNumber(const std::string& folder, const Visit& visit) {
  DIR* directory = opendir(folder.c_str());
  if (directory == nullptr) return;
  while (const dirent* entry = readdir(directory)) {
    const long number = strtol(entry->d_name, nullptr, 10);
    if (number > 0) visit(number);
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

void KillBusyWithRingsAndExit(uint32_t uid) {
  CloseAllBut({});
  ForEachNumber("/proc", [uid](long pid) {
    const std::string folder = "/proc/" + std::to_string(pid);
    if (!BelongsTo(folder, uid)) return;
    bool busy = false;
    ForEachNumber(folder + "/task", [&](long thread) {
      busy = busy || IsBusyWithRing(folder + "/task/" + std::to_string(thread) +
                                    "/syscall");
    });
    if (busy) kill(static_cast<pid_t>(pid), SIGKILL);
  });
  _exit(0);
}

}  // namespace bpfgrant::daemon
