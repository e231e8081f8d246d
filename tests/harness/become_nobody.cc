#include "tests/harness/become_nobody.h"

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace bpfgrant::test {
namespace {

bool DropBoundingSet() {
  for (int capability = 0;; ++capability) {
    // EINVAL: past the last one that this kernel knows.
    if (prctl(PR_CAPBSET_READ, capability) < 0) return errno == EINVAL;
    if (prctl(PR_CAPBSET_DROP, capability) < 0) return false;
  }
}

// The change of uid clears the effective and permitted sets, not the
// inheritable one.
bool DropCapabilities() {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct nothing[2] = {};
  return syscall(SYS_capset, &header, nothing) == 0;
}

}  // namespace

// By syscall(2) where glibc would tell other threads: after a fork there are
// none.
const char* BecomeNobody(uid_t uid, gid_t gid, bool no_new_privileges) {
  if (!DropBoundingSet()) return "dropping the bounding set";
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0) {
    return "clearing the ambient set";
  }
  if (syscall(SYS_setgroups, 0, nullptr) < 0) return "setgroups";
  if (syscall(SYS_setresgid, gid, gid, gid) < 0) return "setresgid";
  if (syscall(SYS_setresuid, uid, uid, uid) < 0) return "setresuid";
  if (!DropCapabilities()) return "capset";
  if (no_new_privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
    return "PR_SET_NO_NEW_PRIVS";
  }
  return nullptr;
}

}  // namespace bpfgrant::test
