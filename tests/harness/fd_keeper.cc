#include "tests/harness/fd_keeper.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/wire/message_socket.h"

namespace bpfgrant::test {
namespace {

constexpr std::string_view kName = "FDNAME=";

sockaddr_un AddressOf(const std::filesystem::path& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  return address;
}

UniqueFd NewSocket() {
  return UniqueFd(
      ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

}  // namespace

FdKeeper::~FdKeeper() = default;

absl::Status FdKeeper::Start(const std::filesystem::path& path,
                             const std::filesystem::path& next) {
  socket_ = NewSocket();
  next_ = NewSocket();
  const sockaddr_un own = AddressOf(path), theirs = AddressOf(next);
  if (bind(socket_.get(), reinterpret_cast<const sockaddr*>(&own),
           sizeof(own)) < 0 ||
      chmod(path.c_str(), 0666) < 0 ||
      connect(next_.get(), reinterpret_cast<const sockaddr*>(&theirs),
              sizeof(theirs)) < 0) {
    return absl::InternalError(
        absl::StrCat("the fd keeper: ", std::strerror(errno)));
  }
  reader_ = std::jthread([this](const std::stop_token& stop) { Run(stop); });
  return absl::OkStatus();
}

void FdKeeper::Run(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    pollfd readable{socket_.get(), POLLIN, 0};
    poll(&readable, 1, 10);
    const std::lock_guard lock(mutex_);
    if (!paused_) ReadAll();
  }
}

// Each open file is kept once, under whatever name came first.
void FdKeeper::Add(const std::string& name, UniqueFd fd) {
  const pid_t self = getpid();
  for (const auto& [known, other] : fds_) {
    if (syscall(SYS_kcmp, self, self, KCMP_FILE, fd.get(), other.get()) == 0) {
      return;
    }
  }
  fds_.emplace(name, std::move(fd));
}

void FdKeeper::Put(const std::string& name, UniqueFd fd) {
  const std::lock_guard lock(mutex_);
  Add(name, std::move(fd));
}

bool FdKeeper::ReadOne() {
  std::array<char, 4096> buffer;
  auto packet = ReceivePacket(socket_.get(), absl::MakeSpan(buffer), 253);
  if (!packet.ok()) return false;
  const std::vector<std::string> lines = absl::StrSplit(
      absl::string_view(packet->bytes.data(), packet->bytes.size()), '\n');
  std::string name = "stored";
  const auto has = [&lines](const char* line) {
    return std::find(lines.begin(), lines.end(), line) != lines.end();
  };
  for (const std::string& line : lines) {
    if (line.starts_with(kName)) name = line.substr(kName.size());
  }
  if (has("FDSTORE=1")) {
    for (UniqueFd& fd : packet->fds) {
      // As systemd does, which drops what polls as broken.
      pollfd watched{fd.get(), 0, 0};
      if (!has("FDPOLL=0") && poll(&watched, 1, 0) > 0) continue;
      Add(name, std::move(fd));
    }
  } else if (has("FDSTOREREMOVE=1")) {
    fds_.erase(name);
  } else {
    // Whoever does not read it now does not want it.
    (void)SendPacket(next_.get(), packet->bytes, {});
  }
  return true;
}

void FdKeeper::ReadAll() {
  while (ReadOne()) {
  }
}

FdKeeper::Fds FdKeeper::Copy() {
  const std::lock_guard lock(mutex_);
  ReadAll();
  Fds copies;
  for (const auto& [name, fd] : fds_) {
    copies.emplace(name, UniqueFd(fcntl(fd.get(), F_DUPFD_CLOEXEC, 0)));
  }
  return copies;
}

size_t FdKeeper::Count(const std::string& prefix) {
  const std::lock_guard lock(mutex_);
  ReadAll();
  return static_cast<size_t>(std::count_if(
      fds_.begin(), fds_.end(),
      [&](const auto& entry) { return entry.first.starts_with(prefix); }));
}

void FdKeeper::Drop(const std::string& prefix) {
  const std::lock_guard lock(mutex_);
  std::erase_if(
      fds_, [&](const auto& entry) { return entry.first.starts_with(prefix); });
}

void FdKeeper::Pause(bool paused) {
  const std::lock_guard lock(mutex_);
  paused_ = paused;
}

}  // namespace bpfgrant::test
