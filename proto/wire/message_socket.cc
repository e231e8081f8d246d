#include "proto/wire/message_socket.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace bpfgrant {
namespace {

// The most that SCM_RIGHTS can bring (SCM_MAX_FD). Receiving with room for all
// of them means that a surplus is seen, counted and closed here, not cut off by
// the kernel at a place that depends on its version.
constexpr size_t kKernelMaxFds = 253;

// Room for what a hostile sender can make the kernel attach: fds and
// credentials. Anything longer shows as MSG_CTRUNC.
constexpr size_t kControlBytes =
    CMSG_SPACE(sizeof(int) * kKernelMaxFds) + CMSG_SPACE(sizeof(ucred));

void TakeFds(const cmsghdr* header, std::vector<UniqueFd>& fds) {
  const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
  const unsigned char* data = CMSG_DATA(header);
  for (size_t i = 0; i < count; ++i) {
    int fd;
    std::memcpy(&fd, data + i * sizeof(int), sizeof(int));
    fds.emplace_back(fd);
  }
}

Credentials ReadCredentials(const cmsghdr* header) {
  ucred raw;
  std::memcpy(&raw, CMSG_DATA(header), sizeof(raw));
  return {raw.pid, raw.uid, raw.gid};
}

absl::Status SendError(int error) {
  switch (error) {
    case EAGAIN:
      return absl::UnavailableError("the peer's queue is full");
    case EPIPE:
    case ECONNRESET:
    case ENOTCONN:
    case ECONNREFUSED:
      return absl::OutOfRangeError("the peer is gone");
    case ETOOMANYREFS:
    case ENOBUFS:
    case ENOMEM:
      return absl::ResourceExhaustedError(
          absl::StrCat("sendmsg: ", std::strerror(error)));
    default:
      return absl::InternalError(
          absl::StrCat("sendmsg: ", std::strerror(error)));
  }
}

}  // namespace

absl::StatusOr<Packet> ReceivePacket(int socket, absl::Span<char> buffer,
                                     size_t max_fds) {
  alignas(cmsghdr) std::array<char, kControlBytes> control;
  iovec vector{buffer.data(), buffer.size()};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();

  ssize_t length;
  do {
    length = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (length < 0 && errno == EINTR);
  if (length < 0) {
    const int error = errno;
    if (error == EAGAIN) return absl::UnavailableError("nothing to receive");
    if (error == ECONNRESET) return absl::OutOfRangeError("the peer is gone");
    return absl::InternalError(absl::StrCat("recvmsg: ", std::strerror(error)));
  }

  Packet packet;
  bool foreign = false;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
      TakeFds(header, packet.fds);
    } else if (header->cmsg_level == SOL_SOCKET &&
               header->cmsg_type == SCM_CREDENTIALS) {
      packet.credentials = ReadCredentials(header);
    } else {
      foreign = true;
    }
  }
  // Only now, with every fd owned, may it be refused.
  if ((message.msg_flags & MSG_CTRUNC) != 0) {
    return absl::ResourceExhaustedError("control data was cut off: out of fds");
  }
  if ((message.msg_flags & MSG_TRUNC) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("a packet larger than ", buffer.size(), " bytes"));
  }
  if (foreign) {
    return absl::InvalidArgumentError("control data of an unexpected kind");
  }
  if (packet.fds.size() > max_fds) {
    return absl::InvalidArgumentError(absl::StrCat(
        packet.fds.size(), " fds where at most ", max_fds, " may come"));
  }
  // An empty packet cannot be told from the end of the connection on
  // SOCK_SEQPACKET; no frame of ours is empty.
  if (length == 0) return absl::OutOfRangeError("the peer is gone");
  packet.bytes = std::string_view(buffer.data(), static_cast<size_t>(length));
  return packet;
}

absl::Status SendPacket(int socket, std::string_view bytes,
                        absl::Span<const int> fds,
                        std::optional<Credentials> credentials) {
  alignas(cmsghdr) std::array<char, kControlBytes> control;
  if (fds.size() > kKernelMaxFds) {
    return absl::InternalError("more fds than SCM_RIGHTS can carry");
  }
  iovec vector{const_cast<char*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;

  size_t used = 0;
  const auto append = [&](int type, const void* data, size_t size) {
    auto* header = reinterpret_cast<cmsghdr*>(control.data() + used);
    std::memset(header, 0, CMSG_SPACE(size));
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = type;
    header->cmsg_len = CMSG_LEN(size);
    std::memcpy(CMSG_DATA(header), data, size);
    used += CMSG_SPACE(size);
  };
  if (!fds.empty()) append(SCM_RIGHTS, fds.data(), fds.size() * sizeof(int));
  if (credentials.has_value()) {
    const ucred raw{credentials->pid, credentials->uid, credentials->gid};
    append(SCM_CREDENTIALS, &raw, sizeof(raw));
  }
  if (used > 0) {
    message.msg_control = control.data();
    message.msg_controllen = used;
  }

  ssize_t sent;
  do {
    sent = sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0) return SendError(errno);
  return absl::OkStatus();
}

std::vector<int> Numbers(absl::Span<const UniqueFd> fds) {
  std::vector<int> numbers;
  numbers.reserve(fds.size());
  for (const UniqueFd& fd : fds) numbers.push_back(fd.get());
  return numbers;
}

bool AllRead(int socket) {
  int unread = 0;
  if (ioctl(socket, SIOCOUTQ, &unread) < 0) return false;
  // The kernel wakes the sender just before it takes the last byte off the
  // count (sock_wfree, net/core/sock.c); no packet counts as little as one.
  return unread <= 1;
}

}  // namespace bpfgrant
