// A daemon that is started by hand, for what the fixture does not do: a second
// one, one that is refused, one that is passed its sockets.

#ifndef TESTS_PRIVILEGED_DAEMON_PROCESS_H_
#define TESTS_PRIVILEGED_DAEMON_PROCESS_H_

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

#include "proto/wire/unique_fd.h"

namespace bpfgrant::test {

class DaemonProcess {
 public:
  struct Options {
    std::filesystem::path config_file;
    std::filesystem::path runtime_directory;
    std::filesystem::path catalog_directory;
    std::filesystem::path policy_directory;
    // With any, the weakened daemon is started.
    std::vector<std::string> without;
    // Listening sockets, passed as a service manager does.
    std::vector<int> passed;
  };

  explicit DaemonProcess(const Options& options);
  DaemonProcess(const DaemonProcess&) = delete;
  DaemonProcess& operator=(const DaemonProcess&) = delete;
  // Kills it and its loader.
  ~DaemonProcess();

  pid_t pid() const { return pid_; }
  // What it has written so far.
  std::string Log() const;
  // Its exit status; -1: it ended otherwise, or goes on after `timeout`.
  int WaitForExit(std::chrono::milliseconds timeout);

 private:
  [[noreturn]] void Execute(const Options& options) const;

  UniqueFd log_;
  UniqueFd guard_alive_;
  pid_t guard_ = -1;
  pid_t pid_ = -1;
};

}  // namespace bpfgrant::test

#endif  // TESTS_PRIVILEGED_DAEMON_PROCESS_H_
