#include "tests/privileged/daemon_process.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gtest/gtest.h"
#include "tests/harness/daemon_fixture.h"
#include "tests/harness/process_tree.h"

namespace bpfgrant::test {
namespace {

constexpr int kFirstPassed = 3;  // SD_LISTEN_FDS_START, sd_listen_fds(3)
// Where fds wait for their places: above any place.
constexpr int kParking = 100;

}  // namespace

DaemonProcess::DaemonProcess(const Options& options)
    : log_(memfd_create("log", MFD_CLOEXEC)) {
  pid_ = fork();
  EXPECT_GE(pid_, 0) << std::strerror(errno);
  if (pid_ == 0) Execute(options);
  setpgid(pid_, pid_);
  const Guard guard = GuardGroup(pid_);
  guard_ = guard.process;
  guard_alive_.reset(guard.alive);
}

void DaemonProcess::Execute(const Options& options) const {
  setpgid(0, 0);
  dup2(log_.get(), STDOUT_FILENO);
  dup2(log_.get(), STDERR_FILENO);
  std::vector<int> parked;
  for (const int fd : options.passed) {
    parked.push_back(fcntl(fd, F_DUPFD_CLOEXEC, kParking));
  }
  for (size_t i = 0; i < parked.size(); ++i) {
    dup2(parked[i], kFirstPassed + static_cast<int>(i));
  }
  unsetenv("NOTIFY_SOCKET");
  if (!parked.empty()) {
    setenv("LISTEN_FDS", absl::StrCat(parked.size()).c_str(), 1);
    setenv("LISTEN_PID", absl::StrCat(getpid()).c_str(), 1);
  }
  std::vector<std::string> words = {
      options.without.empty() ? DAEMON_PATH : WEAKENED_PATH,
      "--config",
      options.config_file,
      "--runtime-dir",
      options.runtime_directory,
      "--catalog",
      options.catalog_directory,
      "--policy",
      options.policy_directory,
      "--user",
      absl::StrCat(kBrokerUser)};
  if (!options.without.empty()) {
    words.insert(words.end(),
                 {"--without", absl::StrJoin(options.without, ",")});
  }
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  execv(arguments[0], arguments.data());
  _exit(127);
}

DaemonProcess::~DaemonProcess() {
  if (pid_ > 0) {
    kill(-pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  if (guard_ > 0) {
    // Its group may have other members by now.
    kill(guard_, SIGKILL);
    waitpid(guard_, nullptr, 0);
  }
}

std::string DaemonProcess::Log() const {
  std::string text(64 * 1024, '\0');
  const ssize_t length = pread(log_.get(), text.data(), text.size(), 0);
  text.resize(length < 0 ? 0 : static_cast<size_t>(length));
  return text;
}

int DaemonProcess::WaitForExit(std::chrono::milliseconds timeout) {
  int status = -1;
  if (pid_ < 0 ||
      !WaitUntil([&] { return waitpid(pid_, &status, WNOHANG) == pid_; },
                 timeout)) {
    return -1;
  }
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace bpfgrant::test
