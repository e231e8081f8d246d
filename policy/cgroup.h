// What a cgroup's path says: the system manager's unit and the slices it is in.
//
// Of the path alone; who may have made those directories is the caller's
// business.

#ifndef POLICY_CGROUP_H_
#define POLICY_CGROUP_H_

#include <string>
#include <string_view>
#include <vector>

namespace bpfgrant::policy {

// Where a process runs.
struct Location {
  std::string cgroup;  // absolute; empty: none
  // As systemd reads it: behind the slices at the beginning, the first
  // component, if that is a unit. What comes below it is the unit's own affair:
  // a user manager's services, a container's. Empty: none.
  std::string unit;
  std::vector<std::string> slices;  // those at the beginning

  // The path of the unit's own cgroup, a prefix of `cgroup`; of the last slice
  // if there is no unit.
  std::string_view managed() const {
    return std::string_view(cgroup).substr(0, managed_bytes);
  }
  size_t managed_bytes = 0;
};

// A path that is not absolute or leaves the root ("/../x": the cgroup is
// outside the caller's namespace) has neither unit nor slices.
Location Locate(std::string_view cgroup);

// Whether a unit other than a slice can have that name.
bool IsUnitName(std::string_view name);
bool IsSliceName(std::string_view name);

// Whether `cgroup` is `top` or below it.
bool IsWithin(std::string_view cgroup, std::string_view top);

}  // namespace bpfgrant::policy

#endif  // POLICY_CGROUP_H_
