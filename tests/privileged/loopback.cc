#include "tests/privileged/loopback.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "gtest/gtest.h"

namespace bpfgrant::test {
namespace {

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

}  // namespace

UdpSocket::UdpSocket(uint16_t port, bool reuse_port)
    : fd_(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
  const int on = 1;
  if (reuse_port) {
    EXPECT_EQ(setsockopt(fd(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)), 0);
  }
  sockaddr_in address = Loopback(port);
  socklen_t size = sizeof(address);
  EXPECT_EQ(bind(fd(), reinterpret_cast<sockaddr*>(&address), size), 0)
      << std::strerror(errno);
  EXPECT_EQ(getsockname(fd(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  port_ = ntohs(address.sin_port);
}

void UdpSocket::Attach(int option, int program) {
  EXPECT_EQ(setsockopt(fd(), SOL_SOCKET, option, &program, sizeof(program)), 0)
      << std::strerror(errno);
}

void UdpSocket::SendTo(uint16_t port, const std::string& bytes) {
  const sockaddr_in address = Loopback(port);
  // A receiver that answered "nobody is here" before makes one send fail.
  for (int i = 0; i < 2; ++i) {
    if (sendto(fd(), bytes.data(), bytes.size(), 0,
               reinterpret_cast<const sockaddr*>(&address),
               sizeof(address)) == static_cast<ssize_t>(bytes.size())) {
      return;
    }
  }
  ADD_FAILURE() << "sendto: " << std::strerror(errno);
}

std::optional<std::string> UdpSocket::Receive(int wait_ms) {
  pollfd readable = {fd(), POLLIN, 0};
  if (poll(&readable, 1, wait_ms) <= 0) return std::nullopt;
  char bytes[2048];
  const ssize_t size = recv(fd(), bytes, sizeof(bytes), MSG_DONTWAIT);
  if (size < 0) return std::nullopt;
  return std::string(bytes, static_cast<size_t>(size));
}

int UdpSocket::Drain() {
  int count = 0;
  while (Receive()) ++count;
  return count;
}

}  // namespace bpfgrant::test
