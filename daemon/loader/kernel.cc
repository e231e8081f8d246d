#include "daemon/loader/kernel.h"

#include <liburing.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <zlib.h>

#include <array>
#include <cstring>
#include <optional>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "daemon/loader/loop_object.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::daemon {
namespace {

constexpr size_t kMaxFileBytes = 4 * 1024 * 1024;

// A file, unpacked if it is gzip'ed; nothing if it cannot be read.
std::optional<std::string> ReadFile(const std::string& path) {
  gzFile file = gzopen(path.c_str(), "rbe");
  if (file == nullptr) return std::nullopt;
  std::string text;
  std::array<char, 16384> chunk;
  int length;
  while ((length = gzread(file, chunk.data(), chunk.size())) > 0 &&
         text.size() < kMaxFileBytes) {
    text.append(chunk.data(), static_cast<size_t>(length));
  }
  gzclose(file);
  if (length < 0) return std::nullopt;
  return text;
}

bool IsPreemptible(absl::string_view model) {
  return model != "none" && model != "voluntary";
}

Preemption Found(absl::string_view model, std::string evidence) {
  return {IsPreemptible(model), std::string(model), std::move(evidence)};
}

bool IsModel(absl::string_view word) {
  return word == "none" || word == "voluntary" || word == "full" ||
         word == "lazy";
}

// "none voluntary (full)": the one in parentheses is in force.
std::optional<Preemption> FromDebugfs(const std::string& root) {
  constexpr char kPath[] = "/sys/kernel/debug/sched/preempt";
  const auto text = ReadFile(root + kPath);
  if (!text.has_value()) return std::nullopt;
  for (absl::string_view word :
       absl::StrSplit(*text, absl::ByAnyChar(" \n"), absl::SkipEmpty())) {
    if (absl::ConsumePrefix(&word, "(") && absl::ConsumeSuffix(&word, ")") &&
        !word.empty()) {
      return Found(word, kPath);
    }
  }
  return std::nullopt;
}

// The kernel's default, by its configuration.
std::optional<Preemption> FromConfiguration(const std::string& root,
                                            const std::string& release) {
  for (const std::string& path :
       {std::string("/proc/config.gz"), absl::StrCat("/boot/config-", release),
        absl::StrCat("/lib/modules/", release, "/config")}) {
    const auto text = ReadFile(root + path);
    if (!text.has_value()) continue;
    absl::string_view model;
    for (const absl::string_view line : absl::StrSplit(*text, '\n')) {
      // PREEMPT_RT comes beside one of the others and outweighs it.
      if (line == "CONFIG_PREEMPT_RT=y") return Found("rt", path);
      if (line == "CONFIG_PREEMPT_NONE=y") model = "none";
      if (line == "CONFIG_PREEMPT_VOLUNTARY=y") model = "voluntary";
      if (line == "CONFIG_PREEMPT=y") model = "full";
      if (line == "CONFIG_PREEMPT_LAZY=y") model = "lazy";
    }
    if (!model.empty()) return Found(model, path);
  }
  return std::nullopt;
}

// preempt= on the command line; the last one counts.
std::optional<std::string> FromCommandLine(const std::string& root) {
  const auto text = ReadFile(root + "/proc/cmdline");
  if (!text.has_value()) return std::nullopt;
  std::optional<std::string> model;
  for (absl::string_view word :
       absl::StrSplit(*text, absl::ByAnyChar(" \n"), absl::SkipEmpty())) {
    // Behind "--" the words are init's.
    if (word == "--") break;
    if (absl::ConsumePrefix(&word, "preempt=") && IsModel(word)) {
      model = std::string(word);
    }
  }
  return model;
}

Preemption FromDynamic(const std::string& root, const std::string& release) {
  auto configured = FromConfiguration(root, release);
  const auto asked = FromCommandLine(root);
  if (asked.has_value()) {
    // A kernel that is lazy by default may have dropped "none" and "voluntary"
    // and then ignores the word.
    if (!IsPreemptible(*asked) && configured.has_value() &&
        configured->model == "lazy") {
      configured->evidence +=
          absl::StrCat("; preempt=", *asked,
                       " on the command line is not known to be in force");
      return *configured;
    }
    return Found(*asked, "/proc/cmdline");
  }
  if (configured.has_value()) return *configured;
  return {true, "unknown",
          "uname says PREEMPT_DYNAMIC, and neither debugfs, the command line "
          "nor a configuration of the kernel's says more"};
}

// Sets SO_REUSEADDR on `socket` through `ring`.
bool SetOptionThroughRing(io_uring& ring, int socket) {
  // As in linux/io_uring.h since 6.7; liburing 2.3 does not name them.
  constexpr uint32_t kSocketUringOpSetsockopt = 3;
  constexpr uint8_t kIoringOpUringCmd = 46;
  constexpr size_t kLevelOffset = 16;   // level, then optname
  constexpr size_t kLengthOffset = 44;  // optlen
  constexpr size_t kValueOffset = 48;   // optval

  io_uring_sqe* entry = io_uring_get_sqe(&ring);
  if (entry == nullptr) return false;
  const int on = 1;
  std::memset(entry, 0, sizeof(*entry));
  entry->opcode = kIoringOpUringCmd;
  entry->fd = socket;
  auto* bytes = reinterpret_cast<unsigned char*>(entry);
  const std::array<uint32_t, 2> option{SOL_SOCKET, SO_REUSEADDR};
  const auto value = reinterpret_cast<uintptr_t>(&on);
  const uint32_t length = sizeof(on);
  std::memcpy(bytes + offsetof(io_uring_sqe, off), &kSocketUringOpSetsockopt,
              sizeof(kSocketUringOpSetsockopt));
  std::memcpy(bytes + kLevelOffset, option.data(), sizeof(option));
  std::memcpy(bytes + kLengthOffset, &length, sizeof(length));
  std::memcpy(bytes + kValueOffset, &value, sizeof(value));
  if (io_uring_submit_and_wait(&ring, 1) < 0) return false;
  io_uring_cqe* completion = nullptr;
  if (io_uring_peek_cqe(&ring, &completion) < 0) return false;
  const bool done = completion->res == 0;
  io_uring_cqe_seen(&ring, completion);
  return done;
}

}  // namespace

Preemption ReadPreemption(const std::string& root, const std::string& release,
                          const std::string& version) {
  if (auto found = FromDebugfs(root); found.has_value()) return *found;
  const std::vector<absl::string_view> words =
      absl::StrSplit(version, ' ', absl::SkipEmpty());
  const auto has = [&](absl::string_view word) {
    for (const absl::string_view other : words) {
      if (other == word) return true;
    }
    return false;
  };
  if (has("PREEMPT_RT")) return Found("rt", "uname says PREEMPT_RT");
  if (has("PREEMPT_DYNAMIC")) return FromDynamic(root, release);
  if (has("PREEMPT")) return Found("full", "uname says PREEMPT");
  return {false, "none or voluntary", "uname says nothing of PREEMPT"};
}

int ReadKernelSetting(const std::string& root, const std::string& name) {
  const auto text = ReadFile(absl::StrCat(root, "/proc/sys/kernel/", name));
  int value;
  if (!text.has_value() || !absl::SimpleAtoi(*text, &value)) return -1;
  return value;
}

bool HasPeerPidfd() {
  // As in asm-generic/socket.h since 6.5.
  constexpr int kPeerPidfd = 77;
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
    return false;
  }
  const UniqueFd ours(pair[0]), theirs(pair[1]);
  int pidfd = -1;
  socklen_t size = sizeof(pidfd);
  if (getsockopt(ours.get(), SOL_SOCKET, kPeerPidfd, &pidfd, &size) < 0) {
    return false;
  }
  const UniqueFd owned(pidfd);
  return owned.valid();
}

bool HasSocketUringSetsockopt() {
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  io_uring ring;
  if (!socket.valid() || io_uring_queue_init(2, &ring, 0) < 0) return false;
  const bool has = SetOptionThroughRing(ring, socket.get());
  io_uring_queue_exit(&ring);
  return has;
}

v1::KernelFacts ReadKernelFacts() {
  utsname name{};
  uname(&name);
  const Preemption preemption = ReadPreemption("", name.release, name.version);
  v1::KernelFacts facts;
  facts.set_release(name.release);
  facts.set_preemptible(preemption.preemptible);
  facts.set_preemption(preemption.model);
  facts.set_preemption_evidence(preemption.evidence);
  facts.set_peer_pidfd(HasPeerPidfd());
  facts.set_socket_uring_setsockopt(HasSocketUringSetsockopt());
  facts.set_unprivileged_bpf_disabled(
      ReadKernelSetting("", "unprivileged_bpf_disabled"));
  facts.set_io_uring_disabled(ReadKernelSetting("", "io_uring_disabled"));
  facts.set_io_uring_loops(KernelHasLoops());
  return facts;
}

}  // namespace bpfgrant::daemon
