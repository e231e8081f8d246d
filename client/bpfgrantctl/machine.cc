#include "client/bpfgrantctl/machine.h"

#include <linux/io_uring.h>
#include <linux/magic.h>
#include <linux/seccomp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "proto/wire/limits.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::ctl {
namespace {

std::string ReadLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::optional<int32_t> ReadNumber(const std::string& path) {
  std::ifstream file(path);
  int32_t number = 0;
  if (!(file >> number)) return std::nullopt;
  return number;
}

// Of "none [integrity] confidentiality" the one in brackets.
std::string Chosen(const std::string& line) {
  const size_t begin = line.find('[');
  const size_t end = line.find(']', begin);
  if (begin == std::string::npos || end == std::string::npos) return "";
  return line.substr(begin + 1, end - begin - 1);
}

bool HasSeccompFilter(const std::string& root) {
  std::ifstream file(root + "/proc/self/status");
  const std::string wanted = absl::StrCat("Seccomp:\t", SECCOMP_MODE_FILTER);
  for (std::string line; std::getline(file, line);) {
    if (line == wanted) return true;
  }
  return false;
}

int TryRing() {
  io_uring_params parameters{};
  const UniqueFd ring(
      static_cast<int>(syscall(SYS_io_uring_setup, 1, &parameters)));
  return ring.valid() ? 0 : errno;
}

uint64_t SoftLimit(int resource) {
  rlimit limit{};
  return getrlimit(resource, &limit) == 0 ? limit.rlim_cur : 0;
}

void Add(Findings& findings, Level level, const char* topic,
         const std::string& what, const std::string& advice = "") {
  findings.push_back({level, topic, what, advice});
}

void JudgeSecurity(const Machine& machine, Findings& findings) {
  if (machine.lockdown == "confidentiality") {
    Add(findings, Level::kWrong, "lockdown",
        "is confidentiality: programs that read kernel memory are refused",
        "Boot with lockdown=integrity, or have an approved variant that does "
        "without.");
  } else {
    Add(findings, Level::kFine, "lockdown",
        machine.lockdown.empty() ? "not in this kernel, or not to be seen here"
                                 : "is " + machine.lockdown);
  }
  if (machine.selinux_enforces) {
    Add(findings, Level::kNote, "lsm",
        absl::StrCat(machine.modules, "; SELinux enforces its policy"),
        "If a load or an attachment is refused, look for `avc: denied` with "
        "bpf or io_uring: ausearch -m avc -ts recent");
  } else {
    Add(findings, Level::kFine, "lsm",
        machine.modules.empty() ? "not to be seen here" : machine.modules);
  }
}

void JudgeBpf(const Machine& machine, Findings& findings) {
  if (machine.kernel_btf) {
    Add(findings, Level::kFine, "btf", "the kernel tells its own types");
  } else {
    Add(findings, Level::kWrong, "btf",
        "/sys/kernel/btf/vmlinux is missing: no program that depends on the "
        "kernel's types can be loaded",
        "Boot a kernel with CONFIG_DEBUG_INFO_BTF=y, as distributions have "
        "it.");
  }
  Add(findings, Level::kFine, "bpffs",
      machine.bpf_filesystem
          ? "on /sys/fs/bpf; bpfgrantd pins nothing there"
          : "not on /sys/fs/bpf, and not needed: bpfgrantd pins nothing");
  if (machine.jit == 0) {
    Add(findings, Level::kNote, "jit",
        "net.core.bpf_jit_enable is 0: programs are interpreted",
        "For speed: sysctl -w net.core.bpf_jit_enable=1");
  }
  if (machine.stats.value_or(0) != 0) {
    Add(findings, Level::kNote, "statistics",
        "kernel.bpf_stats_enabled is 1: each run of a program is timed",
        "If nobody looks at them: sysctl -w kernel.bpf_stats_enabled=0");
  }
}

void JudgeRing(const Machine& machine, Findings& findings) {
  if (machine.ring_error == 0) {
    Add(findings, Level::kFine, "your ring", "you can make an io_uring");
    return;
  }
  const std::string what = absl::StrCat("you cannot make an io_uring: ",
                                        std::strerror(machine.ring_error));
  switch (machine.ring_error) {
    case ENOSYS:
      Add(findings, Level::kNote, "your ring", what,
          machine.seccomp
              ? "A seccomp filter of yours may hide it, as containers have "
                "one: allow io_uring_setup(2), _enter and _register."
              : "Attach with setsockopt(2); for loops, run a kernel with "
                "CONFIG_IO_URING=y.");
      return;
    case EPERM:
    case EACCES:
      Add(findings, Level::kNote, "your ring", what,
          machine.seccomp
              ? "A seccomp filter of yours forbids it, as containers have "
                "one: allow io_uring_setup(2), _enter and _register."
              : "See kernel.io_uring_disabled and kernel.io_uring_group, and "
                "the security modules' logs.");
      return;
    case ENOMEM:
      Add(findings, Level::kNote, "your ring",
          absl::StrCat(what, " (RLIMIT_MEMLOCK is ", machine.locked_bytes,
                       " bytes)"),
          "Raise ulimit -l, or LimitMEMLOCK= of the unit: before Linux 5.12 "
          "rings count.");
      return;
    default:
      Add(findings, Level::kNote, "your ring", what,
          "io_uring_setup(2) tells what that means.");
  }
}

}  // namespace

Machine ReadMachine(const std::string& root) {
  Machine machine;
  const std::string security = root + "/sys/kernel/security/";
  machine.lockdown = Chosen(ReadLine(security + "lockdown"));
  machine.modules = ReadLine(security + "lsm");
  machine.selinux_enforces =
      ReadNumber(root + "/sys/fs/selinux/enforce").value_or(0) == 1;
  machine.kernel_btf =
      std::filesystem::exists(root + "/sys/kernel/btf/vmlinux");
  struct statfs system {};
  machine.bpf_filesystem =
      statfs((root + "/sys/fs/bpf").c_str(), &system) == 0 &&
      static_cast<uint64_t>(system.f_type) == BPF_FS_MAGIC;
  machine.jit = ReadNumber(root + "/proc/sys/net/core/bpf_jit_enable");
  machine.stats = ReadNumber(root + "/proc/sys/kernel/bpf_stats_enabled");
  machine.seccomp = HasSeccompFilter(root);
  machine.ring_error = TryRing();
  machine.open_files = SoftLimit(RLIMIT_NOFILE);
  machine.locked_bytes = SoftLimit(RLIMIT_MEMLOCK);
  return machine;
}

void JudgeMachine(const Machine& machine, Findings& findings) {
  JudgeSecurity(machine, findings);
  JudgeBpf(machine, findings);
  JudgeRing(machine, findings);
  const std::string files =
      absl::StrCat("you may have ", machine.open_files, " open files");
  if (machine.open_files < 4 * kMaxFdsPerGrant) {
    Add(findings, Level::kNote, "your limits",
        absl::StrCat(files, "; one grant may bring ", kMaxFdsPerGrant),
        "Raise ulimit -n, or LimitNOFILE= of the unit: fds for which there is "
        "no room are lost, and the grant with them.");
  } else {
    Add(findings, Level::kFine, "your limits", files);
  }
}

void JudgeControlSocket(const std::string& broker_socket, Findings& findings) {
  const std::string path =
      std::filesystem::path(broker_socket).replace_filename("control.sock");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) return;
  std::memcpy(address.sun_path, path.c_str(), path.size());
  const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (connect(socket.get(), reinterpret_cast<const sockaddr*>(&address),
              sizeof(address)) == 0) {
    Add(findings, Level::kFine, "control", "gRPC is served at " + path);
    return;
  }
  Add(findings, Level::kWrong, "control",
      absl::StrCat(path, ": ", std::strerror(errno)),
      "Clients of gRPC need it, this tool does not. See `systemctl status "
      "bpfgrantd.socket`.");
}

}  // namespace bpfgrant::ctl
