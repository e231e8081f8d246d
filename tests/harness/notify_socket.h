// The receiving end of sd_notify(3): what a service tells its manager.

#ifndef TESTS_HARNESS_NOTIFY_SOCKET_H_
#define TESTS_HARNESS_NOTIFY_SOCKET_H_

#include <chrono>
#include <filesystem>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::test {

class NotifySocket {
 public:
  // Binds to `path`, for any user to write to. kInternal: with its errno.
  absl::Status Bind(const std::filesystem::path& path);

  // Forgets what has been said so far.
  void Drain();

  // Waits for a message with the line `line`; others are forgotten.
  // `ended`, asked meanwhile, says why there will be none; OK: go on waiting.
  // kDeadlineExceeded: none came within `timeout`.
  absl::Status WaitFor(const std::string& line,
                       std::chrono::milliseconds timeout,
                       const std::function<absl::Status()>& ended);

 private:
  UniqueFd socket_;
};

}  // namespace bpfgrant::test

#endif  // TESTS_HARNESS_NOTIFY_SOCKET_H_
