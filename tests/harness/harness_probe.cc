// The client that the harness's own test executes.
//
//   assert         is it nobody?
//   fds            lists its open fds
//   environment    prints its environment
//   echo           says "ready", then repeats its input
//   sleep          says "ready", then sleeps
//   shout          writes more than a pipe holds, to both streams

#include <dirent.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>

#include "tests/harness/probe_privilege.h"

extern char** environ;

namespace {

void PrintFds() {
  DIR* directory = opendir("/proc/self/fd");
  while (const dirent* entry = readdir(directory)) {
    const int number = std::atoi(entry->d_name);
    if (entry->d_name[0] != '.' && number != dirfd(directory)) {
      std::printf("%d ", number);
    }
  }
  closedir(directory);
}

}  // namespace

int main(int argc, char** argv) {
  bpfgrant::test::AssertUnprivileged();
  const std::string task = argc > 1 ? argv[1] : "";
  if (task == "fds") PrintFds();
  if (task == "environment") {
    for (char** entry = environ; *entry != nullptr; ++entry) {
      std::printf("%s\n", *entry);
    }
  }
  if (task == "echo" || task == "sleep") {
    std::cout << "ready" << std::endl;
    for (std::string line; task == "echo" && std::getline(std::cin, line);) {
      std::cout << "said " << line << std::endl;
    }
    if (task == "sleep") sleep(1000);
  }
  if (task == "shout") {
    const std::string much(300'000, 'x');
    std::cout << much << std::flush;
    std::cerr << much << std::flush;
  }
  return 7;
}
