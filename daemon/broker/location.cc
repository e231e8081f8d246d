#include "daemon/broker/location.h"

#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cstddef>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/process.h"

namespace bpfgrant::broker {
namespace {

// As systemd mounts it: alone, or beside the hierarchies of version 1.
constexpr const char* kRoots[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};
// Of /proc/PID/cgroup, the line of version 2.
constexpr std::string_view kUnified = "0::";

const char* FindRoot() {
  for (const char* root : kRoots) {
    struct statfs status {};
    if (statfs(root, &status) == 0 && status.f_type == CGROUP2_SUPER_MAGIC) {
      return root;
    }
  }
  return nullptr;
}

std::optional<std::string> ReadCgroup(pid_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/cgroup"));
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(kUnified)) return line.substr(kUnified.size());
  }
  return std::nullopt;
}

bool OnlyRootCanMakeIn(const std::string& directory) {
  struct stat status {};
  return stat(directory.c_str(), &status) == 0 && status.st_uid == 0 &&
         (status.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

// How much of `managed`, by whole names, none but root can have made.
size_t BytesOfRoot(const std::string& root, std::string_view managed) {
  size_t end = 0;
  while (end < managed.size() &&
         OnlyRootCanMakeIn(
             absl::StrCat(root, std::string(managed.substr(0, end))))) {
    end = std::min(managed.find('/', end + 1), managed.size());
  }
  return end;
}

// What somebody would take for the unit who does not know that others than the
// system manager have units, too.
policy::Location LastUnitOf(std::string_view cgroup) {
  policy::Location location = policy::Locate(cgroup);
  const std::string_view last = cgroup.substr(cgroup.rfind('/') + 1);
  if (policy::IsUnitName(last)) location.unit = last;
  return location;
}

}  // namespace

policy::Location LocateBelow(const std::string& root, std::string_view cgroup,
                             const daemon::Mitigations& mitigations) {
  if (!mitigations.unit_is_system_managers) return LastUnitOf(cgroup);
  policy::Location location = policy::Locate(cgroup);
  if (!mitigations.cgroup_owner_check) return location;
  const std::string_view managed = location.managed();
  const size_t of_root = BytesOfRoot(root, managed);
  if (of_root == managed.size()) return location;
  policy::Location trusted = policy::Locate(managed.substr(0, of_root));
  trusted.cgroup = cgroup;
  return trusted;
}

std::optional<policy::Location> LocateAgain(
    std::string_view cgroup, const daemon::Mitigations& mitigations) {
  static const char* const root = FindRoot();
  if (root == nullptr) return std::nullopt;
  return LocateBelow(root, cgroup, mitigations);
}

std::optional<policy::Location> ReadLocation(
    int pidfd, pid_t pid, const daemon::Mitigations& mitigations) {
  // /proc may be of another pid namespace than the numbers in credentials.
  const std::optional<pid_t> number =
      mitigations.location_by_pidfd ? daemon::PidOf(pidfd) : pid;
  if (!number.has_value()) return std::nullopt;
  const std::optional<std::string> cgroup = ReadCgroup(*number);
  // The number was still this process's only if it is alive now.
  if (!cgroup.has_value() || !daemon::IsAlive(pidfd)) return std::nullopt;
  return LocateAgain(*cgroup, mitigations);
}

}  // namespace bpfgrant::broker
