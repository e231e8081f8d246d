#include "daemon/broker/privileges.h"

#include <grp.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"

namespace bpfgrant::broker {
namespace {

absl::Status Failed(absl::string_view step, int error) {
  return absl::InternalError(
      absl::StrCat("dropping privileges, ", step, ": ", std::strerror(error)));
}

absl::Status DropBoundingSet() {
  for (int capability = 0; capability <= cap_max_bits() - 1; ++capability) {
    if (prctl(PR_CAPBSET_READ, capability) == 1 &&
        prctl(PR_CAPBSET_DROP, capability) < 0) {
      return Failed("bounding set", errno);
    }
  }
  return absl::OkStatus();
}

absl::Status DropCapabilities() {
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  const std::unique_ptr<_cap_struct, int (*)(void*)> none(cap_init(), cap_free);
  if (none == nullptr || cap_set_proc(none.get()) < 0) {
    return Failed("capabilities", errno);
  }
  return absl::OkStatus();
}

// A list of what is denied, not of what is allowed: gRPC and libc decide what
// they call, and change their minds between distributions. Everything that
// could reach the kernel's privileged parts needs capabilities as well, and
// those are gone; this closes what needs none.
constexpr const char* kDenied[] = {"bpf",
                                   "ptrace",
                                   "process_vm_readv",
                                   "process_vm_writev",
                                   "process_madvise",
                                   "pidfd_getfd",
                                   "kcmp",
                                   "execve",
                                   "execveat",
                                   "perf_event_open",
                                   "userfaultfd",
                                   "io_uring_setup",
                                   "io_uring_enter",
                                   "io_uring_register",
                                   "keyctl",
                                   "add_key",
                                   "request_key",
                                   "unshare",
                                   "setns",
                                   "mount",
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
                                   "open_by_handle_at",
                                   "name_to_handle_at",
                                   "init_module",
                                   "finit_module",
                                   "delete_module",
                                   "kexec_load",
                                   "kexec_file_load",
                                   "reboot",
                                   "swapon",
                                   "swapoff",
                                   "acct",
                                   "quotactl",
                                   "personality",
                                   "modify_ldt",
                                   "iopl",
                                   "ioperm",
                                   "settimeofday",
                                   "clock_settime",
                                   "adjtimex",
                                   "clock_adjtime",
                                   "sethostname",
                                   "setdomainname",
                                   "syslog",
                                   "vhangup",
                                   "lookup_dcookie",
                                   "memfd_secret",
                                   "landlock_create_ruleset"};

absl::Status InstallFilter() {
  const std::unique_ptr<void, void (*)(void*)> filter(
      seccomp_init(SCMP_ACT_ALLOW), [](void* context) {
        if (context != nullptr) seccomp_release(context);
      });
  if (filter == nullptr) return Failed("seccomp", ENOMEM);
  for (const char* name : kDenied) {
    const int number = seccomp_syscall_resolve_name(name);
    // Not every architecture has each of them.
    if (number == __NR_SCMP_ERROR) continue;
    const int error =
        seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(EPERM), number, 0);
    if (error < 0 && error != -EDOM) return Failed(name, -error);
  }
  // A new namespace would bring capabilities in it. clone3 hides its flags from
  // filters; ENOSYS makes libc use clone, which does not.
  int error = seccomp_rule_add(
      filter.get(), SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
      SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_NEWUSER, CLONE_NEWUSER));
  if (error == 0) {
    error = seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(ENOSYS),
                             SCMP_SYS(clone3), 0);
  }
  if (error == 0) error = seccomp_load(filter.get());
  return error == 0 ? absl::OkStatus() : Failed("seccomp", -error);
}

}  // namespace

absl::Status DropToBroker(uid_t uid, gid_t gid,
                          const daemon::Mitigations& mitigations) {
  if (mitigations.broker_drops_privilege) {
    // The bounding set while CAP_SETPCAP is still there, the ids while
    // CAP_SETUID is; changing the uid clears the rest.
    if (absl::Status status = DropBoundingSet(); !status.ok()) return status;
    if (setgroups(0, nullptr) < 0) return Failed("groups", errno);
    if (setresgid(gid, gid, gid) < 0) return Failed("gid", errno);
    if (setresuid(uid, uid, uid) < 0) return Failed("uid", errno);
    if (absl::Status status = DropCapabilities(); !status.ok()) return status;
  }
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
    return Failed("no_new_privs", errno);
  }
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) return Failed("dumpable", errno);
  if (mitigations.broker_seccomp) return InstallFilter();
  return absl::OkStatus();
}

}  // namespace bpfgrant::broker
