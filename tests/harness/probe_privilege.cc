#include "tests/harness/probe_privilege.h"

#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

namespace bpfgrant::test {
namespace {

// The words behind "NAME:"; false if there is no such line.
bool FindLine(const std::string& status, const std::string& name,
              std::string& value) {
  std::istringstream lines(status);
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind(name + ":", 0) != 0) continue;
    value.clear();
    std::istringstream words(line.substr(name.size() + 1));
    for (std::string word; words >> word;) {
      value += (value.empty() ? "" : " ") + word;
    }
    return true;
  }
  return false;
}

std::string CapabilityName(int capability) {
  switch (capability) {
    case CAP_BPF:
      return "CAP_BPF";
    case CAP_NET_ADMIN:
      return "CAP_NET_ADMIN";
    case CAP_PERFMON:
      return "CAP_PERFMON";
    case CAP_SETPCAP:
      return "CAP_SETPCAP";
    case CAP_SETUID:
      return "CAP_SETUID";
    case CAP_SYS_ADMIN:
      return "CAP_SYS_ADMIN";
    case CAP_SYS_PTRACE:
      return "CAP_SYS_PTRACE";
    case CAP_SYS_RESOURCE:
      return "CAP_SYS_RESOURCE";
    default:
      return "capability " + std::to_string(capability);
  }
}

}  // namespace

std::string PrivilegeIn(const std::string& status) {
  struct Wanted {
    const char* name;
    const char* value;
  };
  // The four ids: real, effective, saved, file system.
  constexpr Wanted kWanted[] = {
      {"Uid", "65534 65534 65534 65534"},
      {"Gid", "65534 65534 65534 65534"},
      {"Groups", ""},
      {"CapInh", "0000000000000000"},
      {"CapPrm", "0000000000000000"},
      {"CapEff", "0000000000000000"},
      {"CapBnd", "0000000000000000"},
      {"CapAmb", "0000000000000000"},
  };
  for (const Wanted& wanted : kWanted) {
    std::string value;
    if (!FindLine(status, wanted.name, value)) {
      return std::string(wanted.name) + " is not told";
    }
    if (value != wanted.value) {
      return std::string(wanted.name) + " is '" + value + "', not '" +
             wanted.value + "'";
    }
  }
  return "";
}

void AssertUnprivileged() {
  std::ifstream file("/proc/self/status");
  std::ostringstream status;
  status << file.rdbuf();
  const std::string privilege = PrivilegeIn(status.str());
  if (privilege.empty()) return;
  std::fprintf(stderr, "this client has privilege, so it shows nothing: %s\n",
               privilege.c_str());
  std::exit(kNotUnprivileged);
}

std::string MissingPrivilege(std::initializer_list<int> capabilities) {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct sets[2] = {};
  if (syscall(SYS_capget, &header, sets) < 0) {
    return std::string("privilege: capget: ") + std::strerror(errno);
  }
  for (const int capability : capabilities) {
    const uint32_t effective = sets[CAP_TO_INDEX(capability)].effective;
    if ((effective & CAP_TO_MASK(capability)) == 0) {
      return "privilege: " + CapabilityName(capability) + " is missing";
    }
  }
  return "";
}

}  // namespace bpfgrant::test
