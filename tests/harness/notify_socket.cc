#include "tests/harness/notify_socket.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace bpfgrant::test {
namespace {

absl::Status Failed() {
  return absl::InternalError(
      absl::StrCat("the notification socket: ", std::strerror(errno)));
}

}  // namespace

absl::Status NotifySocket::Bind(const std::filesystem::path& path) {
  socket_.reset(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  if (bind(socket_.get(), reinterpret_cast<sockaddr*>(&address),
           sizeof(address)) < 0 ||
      chmod(path.c_str(), 0666) < 0) {
    return Failed();
  }
  return absl::OkStatus();
}

void NotifySocket::Drain() {
  char text[4096];
  while (recv(socket_.get(), text, sizeof(text), MSG_DONTWAIT) >= 0) {
  }
}

absl::Status NotifySocket::WaitFor(const std::string& line,
                                   std::chrono::milliseconds timeout,
                                   const std::function<absl::Status()>& ended) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (std::chrono::steady_clock::now() < deadline) {
    pollfd readable = {socket_.get(), POLLIN, 0};
    if (poll(&readable, 1, 20) <= 0) {
      if (absl::Status status = ended(); !status.ok()) return status;
      continue;
    }
    char text[4096];
    const ssize_t size = recv(socket_.get(), text, sizeof(text), 0);
    if (size < 0) return Failed();
    const std::vector<std::string> lines =
        absl::StrSplit(std::string(text, static_cast<size_t>(size)), '\n');
    if (std::find(lines.begin(), lines.end(), line) != lines.end()) {
      return absl::OkStatus();
    }
  }
  return absl::DeadlineExceededError(
      absl::StrCat("it did not say ", line, " in time"));
}

}  // namespace bpfgrant::test
