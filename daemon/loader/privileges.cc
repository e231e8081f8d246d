#include "daemon/loader/privileges.h"

#include <linux/securebits.h>
#include <seccomp.h>
#include <sys/capability.h>
#include <sys/prctl.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace bpfgrant::daemon {
namespace {

// To load programs.
constexpr std::array<cap_value_t, 2> kForPrograms{CAP_BPF, CAP_PERFMON};
// The same, and to see what a client executes (/proc/PID/exe).
constexpr std::array<cap_value_t, 3> kForExecutables{CAP_BPF, CAP_PERFMON,
                                                     CAP_SYS_PTRACE};
// The same, which is also for taking a copy of a client's ring
// (pidfd_getfd(2)), and to end a client that keeps others' loops waiting.
constexpr std::array<cap_value_t, 4> kForLoops{CAP_BPF, CAP_PERFMON,
                                               CAP_SYS_PTRACE, CAP_KILL};

absl::Status ErrnoStatus(absl::string_view what, int error) {
  return absl::InternalError(absl::StrCat(what, ": ", std::strerror(error)));
}

using Capabilities =
    std::unique_ptr<std::remove_pointer_t<cap_t>, int (*)(void*)>;

bool IsHeld(cap_value_t capability) {
  const Capabilities held(cap_get_proc(), cap_free);
  cap_flag_value_t value = CAP_CLEAR;
  return held != nullptr &&
         cap_get_flag(held.get(), capability, CAP_PERMITTED, &value) == 0 &&
         value == CAP_SET;
}

absl::Status CheckHeld(absl::Span<const cap_value_t> kept) {
  for (const cap_value_t capability : kept) {
    if (!IsHeld(capability)) {
      return absl::FailedPreconditionError(
          kept.size() == kForLoops.size()
              ? "the loader needs CAP_BPF and CAP_PERFMON, and for io_uring "
                "loops CAP_SYS_PTRACE and CAP_KILL"
              : "the loader needs CAP_BPF and CAP_PERFMON");
    }
  }
  return absl::OkStatus();
}

// Without a bounding set, and with uid 0 meaning nothing, no exec could bring
// anything back even if it were possible.
absl::Status DropBoundingSet() {
  constexpr unsigned long kBits =
      SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
      SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
      SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
  if (cap_get_bound(CAP_SETPCAP) != 1) {
    // Whoever started the daemon left no right to drop more.
    return absl::OkStatus();
  }
  if (prctl(PR_SET_SECUREBITS, kBits, 0, 0, 0) < 0) {
    return ErrnoStatus("PR_SET_SECUREBITS", errno);
  }
  for (cap_value_t capability = 0; CAP_IS_SUPPORTED(capability); ++capability) {
    if (cap_get_bound(capability) == 1 && cap_drop_bound(capability) < 0) {
      return ErrnoStatus("PR_CAPBSET_DROP", errno);
    }
  }
  return absl::OkStatus();
}

absl::Status DropCapabilities(absl::Span<const cap_value_t> kept) {
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0) {
    return ErrnoStatus("PR_CAP_AMBIENT_CLEAR_ALL", errno);
  }
  const Capabilities wanted(cap_init(), cap_free);
  if (wanted == nullptr) return ErrnoStatus("cap_init", errno);
  for (const cap_flag_t set : {CAP_PERMITTED, CAP_EFFECTIVE}) {
    if (cap_set_flag(wanted.get(), set, static_cast<int>(kept.size()),
                     kept.data(), CAP_SET) < 0) {
      return ErrnoStatus("cap_set_flag", errno);
    }
  }
  if (cap_set_proc(wanted.get()) < 0) return ErrnoStatus("capset", errno);
  return absl::OkStatus();
}

// What a loop's child does to a client's ring.
bool IsForLoops(std::string_view name) {
  return name == "pidfd_getfd" || name == "io_uring_register";
}

// Not an allow-list: looking up users runs whatever the machine's name service
// is made of. What would undo the rest is refused.
absl::Status FilterSystemCalls(bool loops) {
  const std::unique_ptr<void, void (*)(void*)> filter(
      seccomp_init(SCMP_ACT_ALLOW), seccomp_release);
  if (filter == nullptr) return ErrnoStatus("seccomp_init", ENOMEM);
  for (const char* name : {"execve",
                           "execveat",
                           "ptrace",
                           "process_vm_readv",
                           "process_vm_writev",
                           "process_madvise",
                           "pidfd_getfd",
                           "kcmp",
                           "mount",
                           "umount",
                           "umount2",
                           "pivot_root",
                           "chroot",
                           "move_mount",
                           "open_tree",
                           "fsopen",
                           "fsconfig",
                           "fsmount",
                           "fspick",
                           "mount_setattr",
                           "init_module",
                           "finit_module",
                           "delete_module",
                           "create_module",
                           "kexec_load",
                           "kexec_file_load",
                           "reboot",
                           "swapon",
                           "swapoff",
                           "setns",
                           "unshare",
                           "add_key",
                           "keyctl",
                           "request_key",
                           "userfaultfd",
                           "open_by_handle_at",
                           "name_to_handle_at",
                           "acct",
                           "quotactl",
                           "quotactl_fd",
                           "syslog",
                           "settimeofday",
                           "clock_settime",
                           "clock_adjtime",
                           "adjtimex",
                           "sethostname",
                           "setdomainname",
                           "personality",
                           "ioperm",
                           "iopl",
                           "modify_ldt",
                           "lookup_dcookie",
                           "perf_event_open",
                           "io_uring_setup",
                           "io_uring_enter",
                           "io_uring_register",
                           "fanotify_init",
                           "mknod",
                           "mknodat",
                           "bdflush",
                           "vhangup",
                           "nfsservctl",
                           "uselib",
                           "ustat"}) {
    if (loops && IsForLoops(name)) continue;
    const int call = seccomp_syscall_resolve_name(name);
    // Not every architecture and libseccomp has each of them.
    if (call == __NR_SCMP_ERROR) continue;
    const int result =
        seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(EPERM), call, 0);
    if (result < 0 && result != -EDOM) {
      return ErrnoStatus(absl::StrCat("seccomp_rule_add ", name), -result);
    }
  }
  const int result = seccomp_load(filter.get());
  if (result < 0) return ErrnoStatus("seccomp_load", -result);
  return absl::OkStatus();
}

}  // namespace

bool MayLookAtProcesses() { return IsHeld(CAP_SYS_PTRACE); }

absl::Status DropToLoader(bool loops, bool executables) {
  const absl::Span<const cap_value_t> kept =
      loops         ? absl::MakeConstSpan(kForLoops)
      : executables ? absl::MakeConstSpan(kForExecutables)
                    : absl::MakeConstSpan(kForPrograms);
  if (auto status = CheckHeld(kept); !status.ok()) return status;
  if (auto status = DropBoundingSet(); !status.ok()) return status;
  if (auto status = DropCapabilities(kept); !status.ok()) return status;
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
    return ErrnoStatus("PR_SET_NO_NEW_PRIVS", errno);
  }
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) {
    return ErrnoStatus("PR_SET_DUMPABLE", errno);
  }
  return FilterSystemCalls(loops);
}

}  // namespace bpfgrant::daemon
