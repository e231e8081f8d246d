// bpfgrantd as its unit confines it: where no service manager runs, tests find
// out with it whether the unit forbids what the daemon does.
//
// Reads of the unit what can break the daemon and can be had without a service
// manager: SystemCallFilter=, RestrictAddressFamilies=,
// MemoryDenyWriteExecute=, RestrictNamespaces=, PrivateNetwork=, PrivateIPC=,
// CapabilityBoundingSet=. A setting of these that is not understood is an
// error.

#include <sched.h>
#include <seccomp.h>
#include <sys/capability.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"

namespace {

using Words = std::vector<std::string>;

[[noreturn]] void Fail(const std::string& what) {
  std::fprintf(stderr, "under_unit: %s\n", what.c_str());
  std::exit(126);
}

void Check(bool good, const std::string& what) {
  if (!good) Fail(what + ": " + std::strerror(errno));
}

// The [Service] section's settings, each as often as it is there.
std::multimap<std::string, std::string> ReadUnit() {
  std::multimap<std::string, std::string> settings;
  const char* named = std::getenv("BPFGRANT_TEST_UNIT");
  std::ifstream file(named != nullptr ? named : UNIT_FILE);
  bool service = false;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with('[')) service = line == "[Service]";
    const size_t sign = line.find('=');
    if (!service || line.starts_with('#') || sign == std::string::npos) {
      continue;
    }
    settings.emplace(line.substr(0, sign), line.substr(sign + 1));
  }
  if (settings.empty()) Fail("no settings in the unit file");
  return settings;
}

// What `systemd-analyze syscall-filter` said: groups, with what they hold.
std::map<std::string, Words> ReadGroups() {
  std::map<std::string, Words> groups;
  std::ifstream file(GROUPS_FILE);
  std::string group;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with('@')) group = line;
    const std::string word(absl::StripAsciiWhitespace(line));
    if (!line.starts_with(' ') || word.starts_with('#')) continue;
    groups[group].push_back(word);
  }
  if (!groups.contains("@system-service")) Fail("no groups in " GROUPS_FILE);
  return groups;
}

void Expand(const std::map<std::string, Words>& groups, const std::string& word,
            std::set<std::string>& calls) {
  if (!word.starts_with('@')) {
    calls.insert(word);
    return;
  }
  const auto found = groups.find(word);
  if (found == groups.end()) Fail("no group " + word);
  for (const std::string& inner : found->second) Expand(groups, inner, calls);
}

// What the lines of SystemCallFilter= allow: the first is a list of what is.
std::set<std::string> AllowedCalls(
    const std::multimap<std::string, std::string>& unit) {
  const auto groups = ReadGroups();
  std::set<std::string> allowed;
  // The service manager always allows these.
  Expand(groups, "@default", allowed);
  const auto [begin, end] = unit.equal_range("SystemCallFilter");
  if (begin == end) Fail("no SystemCallFilter=");
  for (auto line = begin; line != end; ++line) {
    const bool deny = line->second.starts_with('~');
    if (line == begin && deny) Fail("SystemCallFilter= begins with a denial");
    const Words words = absl::StrSplit(line->second.substr(deny ? 1 : 0), ' ');
    std::set<std::string> calls;
    for (const std::string& word : words) Expand(groups, word, calls);
    for (const std::string& call : calls) {
      if (deny) {
        allowed.erase(call);
      } else {
        allowed.insert(call);
      }
    }
  }
  return allowed;
}

void Rule(scmp_filter_ctx filter, uint32_t action, int call,
          const std::vector<scmp_arg_cmp>& arguments = {}) {
  const int error = seccomp_rule_add_array(
      filter, action, call, static_cast<unsigned>(arguments.size()),
      arguments.data());
  if (error < 0 && error != -EDOM) Fail(std::strerror(-error));
}

void LoadFilter(scmp_filter_ctx filter) {
  const int error = seccomp_load(filter);
  if (error < 0) Fail(std::string("seccomp_load: ") + std::strerror(-error));
  seccomp_release(filter);
}

// The list of what is allowed, and what is denied of that, are two filters, as
// with the service manager.
void FilterCalls(const std::set<std::string>& allowed) {
  scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
  for (const std::string& name : allowed) {
    const int call = seccomp_syscall_resolve_name(name.c_str());
    // Not every architecture has each of them.
    if (call != __NR_SCMP_ERROR) Rule(filter, SCMP_ACT_ALLOW, call);
  }
  LoadFilter(filter);
}

void FilterArguments() {
  constexpr scmp_datum_t kNamespaces =
      CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |
      CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;
  scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
  const uint32_t no_family = SCMP_ACT_ERRNO(EAFNOSUPPORT);
  Rule(filter, no_family, SCMP_SYS(socket), {SCMP_A0(SCMP_CMP_NE, AF_UNIX)});
  const uint32_t denied = SCMP_ACT_ERRNO(EPERM);
  Rule(filter, denied, SCMP_SYS(mprotect),
       {SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, PROT_EXEC)});
  Rule(filter, denied, SCMP_SYS(mmap),
       {SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC | PROT_WRITE,
                PROT_EXEC | PROT_WRITE)});
  Rule(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3));
  // RestrictSUIDSGID=, which could not look at its arguments.
  Rule(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(openat2));
  for (int bit = 0; bit < 32; ++bit) {
    const scmp_datum_t flag = 1u << bit;
    if ((kNamespaces & flag) == 0) continue;
    for (const int call : {SCMP_SYS(clone), SCMP_SYS(unshare)}) {
      Rule(filter, denied, call, {SCMP_A0(SCMP_CMP_MASKED_EQ, flag, flag)});
    }
  }
  LoadFilter(filter);
}

void DropCapabilities(const std::string& kept) {
  std::set<int> bits;
  for (const std::string& name : Words(absl::StrSplit(kept, ' '))) {
    cap_value_t bit = -1;
    Check(cap_from_name(absl::AsciiStrToLower(name).c_str(), &bit) == 0, name);
    bits.insert(bit);
  }
  for (int bit = 0; bit < cap_max_bits(); ++bit) {
    if (bits.contains(bit)) continue;
    Check(prctl(PR_CAPBSET_DROP, bit) == 0, "PR_CAPBSET_DROP");
  }
}

std::string Only(const std::multimap<std::string, std::string>& unit,
                 const std::string& name) {
  if (unit.count(name) != 1) Fail(name + "= is there not once");
  return unit.find(name)->second;
}

}  // namespace

int main(int, char** argv) {
  const auto unit = ReadUnit();
  const std::set<std::string> allowed = AllowedCalls(unit);
  for (const char* name : {"MemoryDenyWriteExecute", "RestrictNamespaces",
                           "PrivateNetwork", "PrivateIPC", "NoNewPrivileges"}) {
    if (Only(unit, name) != "yes") Fail(std::string(name) + "= is not yes");
  }
  if (Only(unit, "RestrictAddressFamilies") != "AF_UNIX") {
    Fail("RestrictAddressFamilies= is not AF_UNIX");
  }
  Check(unshare(CLONE_NEWNET | CLONE_NEWIPC) == 0, "unshare");
  DropCapabilities(Only(unit, "CapabilityBoundingSet"));
  Check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "PR_SET_NO_NEW_PRIVS");
  FilterArguments();
  FilterCalls(allowed);
  execv(DAEMON_PATH, argv);
  Fail(std::string(DAEMON_PATH) + ": " + std::strerror(errno));
}
