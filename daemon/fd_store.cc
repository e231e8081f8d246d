#include "daemon/fd_store.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "proto/wire/limits.h"
#include "proto/wire/message_socket.h"
#include "spdlog/spdlog.h"

namespace bpfgrant::daemon {
namespace {

// The names of all that is stored are one variable of the next daemon's
// environment (LISTEN_FDNAMES), of which the kernel takes 128 KiB
// (MAX_ARG_STRLEN). For each of the two processes.
constexpr size_t kMaxStoredNameBytes = 60 * 1024;
// Messages that wait for the service manager.
constexpr size_t kMaxQueued = 1024;

// Invalid: nobody listens there.
UniqueFd ConnectTo(std::string_view path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) return {};
  std::memcpy(address.sun_path, path.data(), path.size());
  socklen_t length =
      static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
  if (path.front() == '@') {  // an abstract name, as systemd writes it
    address.sun_path[0] = '\0';
    --length;
  }
  UniqueFd socket(
      ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (connect(socket.get(), reinterpret_cast<sockaddr*>(&address), length) < 0)
    return {};
  return socket;
}

}  // namespace

FdStore FdStore::FromEnvironment() {
  FdStore store;
  const char* path = std::getenv("NOTIFY_SOCKET");
  const char* room = std::getenv("FDSTORE");
  size_t fds = 0;
  if (path == nullptr || room == nullptr || !absl::SimpleAtoi(room, &fds)) {
    return store;
  }
  store.socket_ = ConnectTo(path);
  if (!store.socket_.valid()) {
    spdlog::error(
        "the service manager's socket {} does not answer: nothing "
        "outlives a restart",
        path);
    return store;
  }
  store.limit_ = std::min(fds, kMaxStoredFds) / 2;
  return store;
}

bool FdStore::Put(const std::string& name, absl::Span<const int> fds) {
  const size_t bytes = fds.size() * (name.size() + 1);
  if (fds_ + fds.size() > limit_ || bytes_ + bytes > kMaxStoredNameBytes ||
      queue_.size() >= kMaxQueued) {
    return false;
  }
  // The service manager must not watch them: a BPF map that cannot be waited
  // for polls as an error (bpf_map_poll, kernel/bpf/syscall.c), by which it
  // would be dropped at once.
  Message message{absl::StrCat("FDSTORE=1\nFDPOLL=0\nFDNAME=", name), {}};
  for (const int fd : fds) {
    message.fds.emplace_back(fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (!message.fds.back().valid()) return false;
  }
  Adopt(name, fds.size());
  Send(std::move(message));
  return true;
}

void FdStore::Adopt(const std::string& name, size_t fds) {
  names_[name] += fds;
  fds_ += fds;
  bytes_ += fds * (name.size() + 1);
}

void FdStore::Remove(const std::string& name) {
  const auto found = names_.find(name);
  if (found == names_.end()) return;
  fds_ -= found->second;
  bytes_ -= found->second * (name.size() + 1);
  names_.erase(found);
  // What has not been sent yet need not be.
  const auto queued = std::find_if(
      queue_.begin(), queue_.end(), [&name](const Message& message) {
        return !message.fds.empty() && message.text.ends_with("=" + name);
      });
  if (queued != queue_.end()) {
    queue_.erase(queued);
    return;
  }
  Send({absl::StrCat("FDSTOREREMOVE=1\nFDNAME=", name), {}});
}

void FdStore::Send(Message message) {
  if (!socket_.valid()) return;
  if (queue_.empty() && TrySend(message)) return;
  queue_.push_back(std::move(message));
}

bool FdStore::TrySend(const Message& message) {
  const absl::Status status =
      SendPacket(socket_.get(), message.text, Numbers(message.fds));
  // Too many fds in flight is a matter of time, too.
  if (absl::IsUnavailable(status) || absl::IsResourceExhausted(status)) {
    return false;
  }
  if (!status.ok()) {
    spdlog::error("the service manager was not told \"{}\": {}",
                  message.text.substr(message.text.rfind('\n') + 1),
                  std::string(status.message()));
  }
  return true;
}

void FdStore::Flush() {
  while (!queue_.empty() && TrySend(queue_.front())) queue_.pop_front();
}

}  // namespace bpfgrant::daemon
