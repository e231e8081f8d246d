// A tun device with several queues, and packets that the kernel sends into it.

#ifndef TESTS_PRIVILEGED_TUN_DEVICE_H_
#define TESTS_PRIVILEGED_TUN_DEVICE_H_

#include <cstdint>
#include <functional>
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
  // Takes over what another process made; in its network. `packets` is for
  // Inject.
  void Adopt(const std::vector<int>& queues, int packets = -1);
  // Another fd of /dev/net/tun, with this device (TUNSETIFF); `flags` are
  // IFF_TUN, IFF_TAP, IFF_MULTI_QUEUE. Invalid if that fails.
  static UniqueFd Open(int flags);
  // So many more queues. A failure of the test if it does not work.
  void OpenQueues(int count);
  void CloseQueues() { queues_.clear(); }
  // The queues' fds.
  const std::vector<UniqueFd>& queues() const { return queues_; }
  // A packet(7) socket, which only somebody privileged can make.
  const UniqueFd& packets() const { return packets_; }

  // TUNSETSTEERINGEBPF: what ioctl(2) answers.
  int Steer(int program);

  // Has the kernel send a datagram to that port of 192.0.2.2. Returns the
  // flow's addresses and ports in the order in which they are hashed.
  std::vector<uint8_t> SendTo(uint16_t port);
  // The queue that the datagram to this port arrives in; -1: none within a
  // second.
  int QueueOf(uint16_t port);
  // Sends a frame's packet, whatever its addresses, and returns the queue that
  // it arrives in; -1 as above.
  int Inject(const std::vector<char>& frame);

 private:
  using Packet = std::vector<char>;
  // The queue of the first packet that `is_it`.
  int QueueOf(const std::function<bool(const Packet&)>& is_it);

  std::vector<UniqueFd> queues_;
  UniqueFd sender_;
  UniqueFd packets_;
};

}  // namespace bpfgrant::test

#endif  // TESTS_PRIVILEGED_TUN_DEVICE_H_
