#include "tests/harness/process_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>

namespace bpfgrant::test {
namespace {

struct Stat {
  char state = '?';
  pid_t parent = -1;
};

// False if there is no such process.
bool ReadStat(pid_t process, Stat& stat) {
  std::ifstream file("/proc/" + std::to_string(process) + "/stat");
  std::string line;
  if (!std::getline(file, line)) return false;
  // The name before it may hold anything, spaces and brackets, too.
  const size_t end = line.rfind(')');
  return end != std::string::npos &&
         std::sscanf(line.c_str() + end + 1, " %c %d", &stat.state,
                     &stat.parent) == 2;
}

}  // namespace

std::vector<pid_t> ChildrenOf(pid_t process) {
  std::vector<pid_t> children;
  DIR* directory = opendir("/proc");
  if (directory == nullptr) return children;
  while (const dirent* entry = readdir(directory)) {
    const pid_t pid = std::atoi(entry->d_name);
    Stat stat;
    if (pid > 0 && ReadStat(pid, stat) && stat.parent == process) {
      children.push_back(pid);
    }
  }
  closedir(directory);
  return children;
}

bool IsRunning(pid_t process) {
  Stat stat;
  return process > 0 && ReadStat(process, stat) && stat.state != 'Z' &&
         stat.state != 'X';
}

bool WaitUntil(const std::function<bool()>& condition,
               std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

Guard GuardGroup(pid_t group) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) return {};
  const pid_t guard = fork();
  if (guard == 0) {
    // What ends the test must not end the guard with it.
    setsid();
    dup2(ends[0], 0);
    // Whoever reads the test's output must not wait for the guard.
    syscall(SYS_close_range, 1, ~0U, 0);
    char byte;
    while (read(0, &byte, 1) > 0) {
    }
    kill(-group, SIGKILL);
    _exit(0);
  }
  close(ends[0]);
  if (guard < 0) {
    close(ends[1]);
    return {};
  }
  return {guard, ends[1]};
}

}  // namespace bpfgrant::test
