// UDP sockets on the loopback interface.

#ifndef TESTS_PRIVILEGED_LOOPBACK_H_
#define TESTS_PRIVILEGED_LOOPBACK_H_

#include <cstdint>
#include <optional>
#include <string>

#include "proto/wire/unique_fd.h"

namespace bpfgrant::test {

class UdpSocket {
 public:
  // Bound to 127.0.0.1 and `port`; 0: any. `reuse_port` for a group of sockets.
  // A failure of the test if that does not work.
  explicit UdpSocket(uint16_t port = 0, bool reuse_port = false);
  // Bound to any port of an address that is this machine's: 127.0.0.2, ::1.
  explicit UdpSocket(const std::string& address);

  int fd() const { return fd_.get(); }
  uint16_t port() const { return port_; }

  // Sets an option whose value is a program's fd: SO_ATTACH_BPF,
  // SO_ATTACH_REUSEPORT_EBPF. A failure of the test if the kernel refuses.
  void Attach(int option, int program);

  // To that port of 127.0.0.1, or of ::1 from an IPv6 socket.
  void SendTo(uint16_t port, const std::string& bytes);
  // The next datagram; none if there is none within `wait_ms`. On loopback what
  // was sent is there when send returns, so that 0 does.
  std::optional<std::string> Receive(int wait_ms = 0);
  // Takes and counts all that is there.
  int Drain();

 private:
  void Bind(const std::string& address, uint16_t port);

  UniqueFd fd_;
  bool ipv6_ = false;
  uint16_t port_ = 0;
};

}  // namespace bpfgrant::test

#endif  // TESTS_PRIVILEGED_LOOPBACK_H_
