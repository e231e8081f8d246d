#include "tests/harness/open_fds.h"

#include <dirent.h>
#include <limits.h>
#include <unistd.h>

#include <cstdlib>
#include <thread>

namespace bpfgrant::test {

std::map<int, std::string> OpenFds(pid_t process) {
  std::map<int, std::string> fds;
  const std::string folder = "/proc/" + std::to_string(process) + "/fd";
  DIR* directory = opendir(folder.c_str());
  if (directory == nullptr) return fds;
  while (const dirent* entry = readdir(directory)) {
    if (entry->d_name[0] == '.') continue;
    const int number = std::atoi(entry->d_name);
    if (process == getpid() && number == dirfd(directory)) continue;
    char target[PATH_MAX];
    const std::string link = folder + "/" + entry->d_name;
    const ssize_t size = readlink(link.c_str(), target, sizeof(target));
    // Closed since it was listed.
    if (size < 0) continue;
    fds[number] = std::string(target, static_cast<size_t>(size));
  }
  closedir(directory);
  return fds;
}

size_t CountOpenFds(pid_t process) { return OpenFds(process).size(); }

size_t CountFdsLike(const std::map<int, std::string>& fds,
                    const std::string& part) {
  size_t count = 0;
  for (const auto& [number, target] : fds) {
    count += target.find(part) != std::string::npos;
  }
  return count;
}

size_t WaitForOpenFds(pid_t process, size_t count,
                      std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (true) {
    const size_t now = CountOpenFds(process);
    if (now <= count || std::chrono::steady_clock::now() >= deadline) {
      return now;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

std::string Describe(const std::map<int, std::string>& fds) {
  std::string text;
  for (const auto& [number, target] : fds) {
    text += std::to_string(number) + " -> " + target + "\n";
  }
  return text;
}

}  // namespace bpfgrant::test
