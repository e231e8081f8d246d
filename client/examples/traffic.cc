#include "client/examples/traffic.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace bpfgrant::example {
namespace {

absl::Status Failed(const char* what) {
  return absl::InternalError(absl::StrCat(what, ": ", std::strerror(errno)));
}

}  // namespace

absl::StatusOr<UdpPair> OpenUdpPair() {
  UdpPair pair;
  pair.receiver = UniqueFd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  pair.sender = UniqueFd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  auto* raw = reinterpret_cast<sockaddr*>(&address);
  socklen_t length = sizeof(address);
  if (bind(pair.receiver.get(), raw, length) < 0 ||
      getsockname(pair.receiver.get(), raw, &length) < 0 ||
      connect(pair.sender.get(), raw, length) < 0) {
    return Failed("UDP on loopback");
  }
  return pair;
}

absl::Status SendNumbered(int socket, uint64_t first, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    const Numbered datagram{kMagic, first + i};
    if (send(socket, &datagram, sizeof(datagram), 0) != sizeof(datagram)) {
      return Failed("send");
    }
  }
  return absl::OkStatus();
}

int64_t NumberAt(absl::Span<const std::byte> bytes, size_t offset) {
  Numbered datagram;
  if (bytes.size() < offset + sizeof(datagram)) return -1;
  std::memcpy(&datagram, bytes.data() + offset, sizeof(datagram));
  return datagram.magic == kMagic ? static_cast<int64_t>(datagram.number) : -1;
}

}  // namespace bpfgrant::example
