#include "policy/cgroup.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>

#include "absl/strings/ascii.h"

namespace bpfgrant::policy {
namespace {

constexpr size_t kMaxUnitBytes = 255;
constexpr std::string_view kSlice = ".slice";
// Types of units that processes run in or could be thought to.
constexpr std::array<std::string_view, 10> kTypes{
    ".service", ".scope", ".socket", ".mount",     ".swap",
    ".target",  ".timer", ".path",   ".automount", ".device"};

bool IsNameCharacter(char c) {
  return absl::ascii_isalnum(c) ||
         std::string_view(":-_.\\").find(c) != std::string_view::npos;
}

// Before the type: "nginx", "getty@tty1", but no template ("getty@").
bool IsPrefixAndInstance(std::string_view name) {
  if (name.empty() || name.front() == '@') return false;
  const size_t at = name.find('@');
  if (at == name.size() - 1) return false;
  const auto is_valid = [&](char c) { return c == '@' || IsNameCharacter(c); };
  return std::all_of(name.begin(), name.end(), is_valid);
}

// systemd puts '_' before names that the kernel's own files could have.
std::string_view Unescape(std::string_view component) {
  if (component.starts_with('_')) component.remove_prefix(1);
  return component;
}

}  // namespace

bool IsUnitName(std::string_view name) {
  if (name.size() > kMaxUnitBytes) return false;
  return std::any_of(
      kTypes.begin(), kTypes.end(), [name](std::string_view type) {
        return name.ends_with(type) &&
               IsPrefixAndInstance(name.substr(0, name.size() - type.size()));
      });
}

bool IsSliceName(std::string_view name) {
  if (name.size() > kMaxUnitBytes || !name.ends_with(kSlice)) return false;
  const std::string_view prefix = name.substr(0, name.size() - kSlice.size());
  return !prefix.empty() &&
         std::all_of(prefix.begin(), prefix.end(), IsNameCharacter);
}

Location Locate(std::string_view cgroup) {
  Location location;
  location.cgroup = cgroup;
  if (!cgroup.starts_with('/')) return location;
  size_t begin = 1;
  while (begin < cgroup.size()) {
    const size_t end = std::min(cgroup.find('/', begin), cgroup.size());
    const std::string_view name = Unescape(cgroup.substr(begin, end - begin));
    const bool is_slice = IsSliceName(name);
    if (!is_slice && !IsUnitName(name)) break;
    location.managed_bytes = end;
    if (!is_slice) {
      location.unit = name;
      break;
    }
    location.slices.emplace_back(name);
    begin = end + 1;
  }
  return location;
}

bool IsWithin(std::string_view cgroup, std::string_view top) {
  return cgroup.starts_with(top) &&
         (cgroup.size() == top.size() || cgroup[top.size()] == '/');
}

}  // namespace bpfgrant::policy
