#include "tests/e2e/private_journal.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace bpfgrant::test {
namespace {

namespace fs = std::filesystem;

constexpr char kJournald[] = "/lib/systemd/systemd-journald";
constexpr char kSocket[] = "/run/systemd/journal/socket";
constexpr std::chrono::seconds kPatience{20};

absl::Status Failed(const std::string& what) {
  return absl::InternalError(absl::StrCat(what, ": ", std::strerror(errno)));
}

// Where systemd has its units' cgroups, on machines that have the second
// hierarchy alone and on those that have it beside the first.
fs::path CgroupRoot() {
  const fs::path hybrid = "/sys/fs/cgroup/unified";
  return fs::exists(hybrid) ? hybrid : fs::path("/sys/fs/cgroup");
}

void MoveTo(const fs::path& cgroup) {
  std::ofstream(cgroup / "cgroup.procs") << getpid() << std::flush;
}

fs::path CgroupOfThisProcess() {
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    if (absl::StartsWith(line, "0::/")) {
      return CgroupRoot() / std::string(absl::StripPrefix(line, "0::/"));
    }
  }
  return CgroupRoot();
}

}  // namespace

absl::Status PrivateJournal::Start() {
  if (unshare(CLONE_NEWNS) < 0 ||
      mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) < 0) {
    return Failed("a mount namespace");
  }
  for (const char* folder : {"/run", "/var/log/journal"}) {
    if (fs::exists(folder) && mount("tmpfs", folder, "tmpfs", 0, nullptr) < 0) {
      return Failed(folder);
    }
  }
  fs::create_directories("/run/log/journal");
  fs::create_directories("/run/systemd/journal");
  journald_ = fork();
  if (journald_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execl(kJournald, kJournald, nullptr);
    _exit(127);
  }
  const auto until = std::chrono::steady_clock::now() + kPatience;
  while (!fs::exists(kSocket)) {
    if (std::chrono::steady_clock::now() > until) return Failed(kSocket);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return absl::OkStatus();
}

PrivateJournal::~PrivateJournal() {
  if (journald_ < 0) return;
  kill(journald_, SIGKILL);
  waitpid(journald_, nullptr, 0);
}

InUnit::InUnit(const std::string& name) : before_(CgroupOfThisProcess()) {
  const fs::path unit = CgroupRoot() / "system.slice" / name;
  fs::create_directories(unit);
  MoveTo(unit);
}

InUnit::~InUnit() { MoveTo(before_); }

void InUnit::RemoveUnit(const std::string& name) {
  const fs::path slice = CgroupRoot() / "system.slice";
  std::error_code busy;
  fs::remove(slice / name, busy);
  fs::remove(slice, busy);
}

}  // namespace bpfgrant::test
