// The daemon that cases share when CTest runs them all: to start one for each
// takes most of the time in an emulated machine.
//
//   shared_daemon up FILE PROGRAM CATALOG
//   shared_daemon down FILE
//
// "up" leaves the daemon behind, with a process that keeps it: its broker's
// socket and that process's pid stand in FILE, a line each; without the
// capabilities for it, FILE stays empty. "down" ends it, and fails if it did
// not live to see that or does not end as it should.

#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <thread>

#include "tests/harness/daemon_fixture.h"
#include "tests/harness/probe_privilege.h"

namespace {

using bpfgrant::test::Daemon;
using std::chrono::seconds;

std::string ReadAll(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// All of it or nothing.
void WriteFile(const std::string& path, const std::string& text) {
  std::ofstream(path + ".new") << text;
  std::rename((path + ".new").c_str(), path.c_str());
}

bool WaitUntil(const std::function<bool()>& holds, seconds limit) {
  const auto until = std::chrono::steady_clock::now() + limit;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

// What FILE says of the keeper `pid`.
std::string Line(const std::string& what, pid_t pid) {
  return what + "\n" + std::to_string(pid) + "\n";
}
std::string Ended(pid_t pid) { return Line("ended", pid); }

// The keeper that FILE is about; 0: none.
pid_t KeeperIn(const std::string& file) {
  const std::string text = ReadAll(file);
  const size_t line = text.find('\n');
  return line == std::string::npos ? 0 : std::atoi(text.c_str() + line + 1);
}

// Keeps the daemon until SIGTERM, or until nobody runs tests any more. Its
// words go into FILE.log.
int Keep(const std::string& file, const std::string& program, pid_t ctest) {
  sigset_t wanted;
  sigemptyset(&wanted);
  sigaddset(&wanted, SIGTERM);
  sigprocmask(SIG_BLOCK, &wanted, nullptr);
  auto daemon = Daemon::Start({.policy = bpfgrant::test::kAllowAll,
                               .config = bpfgrant::test::kNothingAhead,
                               .programs = {program},
                               .start_timeout = seconds(60)});
  if (!daemon.ok()) {
    std::fprintf(stderr, "%s\n", daemon.status().ToString().c_str());
    return 1;
  }
  WriteFile(file, Line((*daemon)->broker_socket(), getpid()));
  const timespec second = {1, 0};
  while (sigtimedwait(&wanted, nullptr, &second) < 0 && kill(ctest, 0) == 0) {
  }
  const absl::Status stopped = (*daemon)->Stop();
  std::fprintf(stderr, "--- its log\n%s---\n", (*daemon)->Log().c_str());
  if (!stopped.ok()) {
    std::fprintf(stderr, "%s\n", stopped.ToString().c_str());
    return 1;
  }
  // It may be another one's by now.
  if (KeeperIn(file) == getpid()) WriteFile(file, Ended(getpid()));
  return 0;
}

int Up(const std::string& file, const std::string& program,
       const char* catalog) {
  WriteFile(file, "");
  // What more a test needs, it says itself.
  const std::string missing =
      bpfgrant::test::MissingPrivilege({CAP_BPF, CAP_PERFMON});
  if (!missing.empty()) {
    std::printf("%s\n", missing.c_str());
    return 0;
  }
  setenv("BPFGRANT_TEST_CATALOG", catalog, /*replace=*/1);
  const pid_t ctest = getppid();
  const pid_t keeper = fork();
  if (keeper == 0) {
    // CTest waits for all who hold its pipes.
    setsid();
    const int log = open((file + ".log").c_str(),
                         O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);
    const int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    dup2(nothing, STDIN_FILENO);
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    _exit(Keep(file, program, ctest));
  }
  const bool up = WaitUntil(
      [&] {
        return KeeperIn(file) == keeper ||
               waitpid(keeper, nullptr, WNOHANG) != 0;
      },
      seconds(70));
  if (up && KeeperIn(file) == keeper) return 0;
  std::printf("%s", ReadAll(file + ".log").c_str());
  return 1;
}

int Down(const std::string& file) {
  if (ReadAll(file).empty()) return 0;
  const pid_t keeper = KeeperIn(file);
  if (keeper <= 0 || kill(keeper, SIGTERM) < 0) {
    std::printf("The daemon's keeper is gone: %s\n", std::strerror(errno));
    return 1;
  }
  const bool ended =
      WaitUntil([&] { return kill(keeper, 0) < 0; }, seconds(30)) &&
      ReadAll(file) == Ended(keeper);
  std::printf("%s", ReadAll(file + ".log").c_str());
  return ended ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string verb = argc > 1 ? argv[1] : "";
  if (verb == "up" && argc == 5) return Up(argv[2], argv[3], argv[4]);
  if (verb == "down" && argc == 3) return Down(argv[2]);
  std::fprintf(stderr,
               "Usage: shared_daemon up FILE PROGRAM CATALOG\n"
               "       shared_daemon down FILE\n");
  return 2;
}
