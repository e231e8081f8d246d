// A tun device with several queues, and packets that the kernel sends into it.

#ifndef TESTS_PRIVILEGED_TUN_DEVICE_H_
#define TESTS_PRIVILEGED_TUN_DEVICE_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "proto/wire/unique_fd.h"

namespace bpfgrant::test {

class TunDevice {
 public:
  static bool InThisKernel();

  // Puts this thread into a network of its own, with the device: 192.0.2.1/24.
  // Needs CAP_SYS_ADMIN and CAP_NET_ADMIN. A failure of the test if it does not
  // work.
  void Make(int queues);
  // Takes over queues that another process made; in its network.
  void Adopt(const std::vector<int>& queues);
  // The queues' fds.
  const std::vector<UniqueFd>& queues() const { return queues_; }

  // TUNSETSTEERINGEBPF: what ioctl(2) answers.
  int Steer(int program);

  // Has the kernel send a datagram to that port of 192.0.2.2. Returns the
  // flow's addresses and ports in the order in which they are hashed.
  std::vector<uint8_t> SendTo(uint16_t port);
  // The queue that the datagram to this port arrives in; -1: none within a
  // second.
  int QueueOf(uint16_t port);

 private:
  std::vector<UniqueFd> queues_;
  UniqueFd sender_;
};

}  // namespace bpfgrant::test

#endif  // TESTS_PRIVILEGED_TUN_DEVICE_H_
