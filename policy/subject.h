// Who asks, as the kernel says. What it did not say is not there, and rules
// that need it then decide against the caller.

#ifndef POLICY_SUBJECT_H_
#define POLICY_SUBJECT_H_

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "policy/cgroup.h"

namespace bpfgrant::policy {

// The file that a process executes.
struct ExecutableFacts {
  std::optional<std::string> path;
  std::optional<std::string> sha256;    // 64 hex digits
  std::optional<std::string> fsverity;  // "sha256:" and 64; empty: it has none
  std::string unknown;                  // why what is missing is
};

// What rules ask of it.
struct ExecutableKinds {
  bool path = false;
  bool sha256 = false;
  bool fsverity = false;
};

struct Subject {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;  // supplementary
  std::optional<Location> location;
  std::optional<std::string> label;  // empty: none, or no LSM that has them
  ExecutableFacts executable;
};

}  // namespace bpfgrant::policy

#endif  // POLICY_SUBJECT_H_
