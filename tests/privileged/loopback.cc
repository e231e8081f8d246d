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

// Of either family.
union Address {
  sockaddr any;
  sockaddr_in ipv4;
  sockaddr_in6 ipv6;
};

Address Parse(const std::string& text, uint16_t port) {
  Address address{};
  if (inet_pton(AF_INET, text.c_str(), &address.ipv4.sin_addr) == 1) {
    address.ipv4.sin_family = AF_INET;
    address.ipv4.sin_port = htons(port);
  } else {
    EXPECT_EQ(inet_pton(AF_INET6, text.c_str(), &address.ipv6.sin6_addr), 1)
        << text;
    address.ipv6.sin6_family = AF_INET6;
    address.ipv6.sin6_port = htons(port);
  }
  return address;
}

socklen_t SizeOf(const Address& address) {
  return address.any.sa_family == AF_INET ? sizeof(address.ipv4)
                                          : sizeof(address.ipv6);
}

}  // namespace

UdpSocket::UdpSocket(uint16_t port, bool reuse_port)
    : fd_(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
  const int on = 1;
  if (reuse_port) {
    EXPECT_EQ(setsockopt(fd(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)), 0);
  }
  Bind("127.0.0.1", port);
}

UdpSocket::UdpSocket(const std::string& address)
    : fd_(socket(Parse(address, 0).any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC,
                 0)) {
  Bind(address, 0);
}

void UdpSocket::Bind(const std::string& text, uint16_t port) {
  Address address = Parse(text, port);
  ipv6_ = address.any.sa_family == AF_INET6;
  socklen_t size = SizeOf(address);
  EXPECT_EQ(bind(fd(), &address.any, size), 0)
      << text << ": " << std::strerror(errno);
  EXPECT_EQ(getsockname(fd(), &address.any, &size), 0);
  port_ = ntohs(ipv6_ ? address.ipv6.sin6_port : address.ipv4.sin_port);
}

void UdpSocket::Attach(int option, int program) {
  EXPECT_EQ(setsockopt(fd(), SOL_SOCKET, option, &program, sizeof(program)), 0)
      << std::strerror(errno);
}

void UdpSocket::SendTo(uint16_t port, const std::string& bytes) {
  const Address address = Parse(ipv6_ ? "::1" : "127.0.0.1", port);
  // A receiver that answered "nobody is here" before makes one send fail.
  for (int i = 0; i < 2; ++i) {
    if (sendto(fd(), bytes.data(), bytes.size(), 0, &address.any,
               SizeOf(address)) == static_cast<ssize_t>(bytes.size())) {
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
