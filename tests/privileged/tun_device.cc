#include "tests/privileged/tun_device.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "gtest/gtest.h"

namespace bpfgrant::test {
namespace {

constexpr char kNode[] = "/dev/net/tun";
constexpr char kOurs[] = "192.0.2.1", kTheirs[] = "192.0.2.2";
constexpr uint16_t kOurPort = 4000;

sockaddr_in AddressOf(const char* text, uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  EXPECT_EQ(inet_pton(AF_INET, text, &address.sin_addr), 1);
  return address;
}

void Append(std::vector<uint8_t>& bytes, const void* from, size_t size) {
  const auto* first = static_cast<const uint8_t*>(from);
  bytes.insert(bytes.end(), first, first + size);
}

}  // namespace

bool TunDevice::InThisKernel() {
  return UniqueFd(open(kNode, O_RDWR | O_CLOEXEC)).valid();
}

void TunDevice::Make(int queues) {
  ASSERT_EQ(unshare(CLONE_NEWNET), 0) << std::strerror(errno);
  ifreq request{};
  std::strcpy(request.ifr_name, "steered");
  for (int i = 0; i < queues; ++i) {
    UniqueFd queue(open(kNode, O_RDWR | O_CLOEXEC | O_NONBLOCK));
    ASSERT_TRUE(queue.valid()) << std::strerror(errno);
    request.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_MULTI_QUEUE;
    ASSERT_EQ(ioctl(queue.get(), TUNSETIFF, &request), 0)
        << std::strerror(errno);
    queues_.push_back(std::move(queue));
  }
  const UniqueFd control(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const auto set = [&](unsigned long what, const char* text) {
    const sockaddr_in address = AddressOf(text, 0);
    std::memcpy(&request.ifr_addr, &address, sizeof(address));
    ASSERT_EQ(ioctl(control.get(), what, &request), 0) << std::strerror(errno);
  };
  set(SIOCSIFADDR, kOurs);
  set(SIOCSIFNETMASK, "255.255.255.0");
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  ASSERT_EQ(ioctl(control.get(), SIOCSIFFLAGS, &request), 0)
      << std::strerror(errno);
}

void TunDevice::Adopt(const std::vector<int>& queues) {
  for (const int queue : queues) queues_.emplace_back(queue);
}

int TunDevice::Steer(int program) {
  return ioctl(queues_.front().get(), TUNSETSTEERINGEBPF, &program);
}

std::vector<uint8_t> TunDevice::SendTo(uint16_t port) {
  const sockaddr_in from = AddressOf(kOurs, kOurPort);
  const sockaddr_in to = AddressOf(kTheirs, port);
  if (!sender_.valid()) {
    sender_ = UniqueFd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(bind(sender_.get(), reinterpret_cast<const sockaddr*>(&from),
                   sizeof(from)),
              0)
        << std::strerror(errno);
  }
  EXPECT_EQ(sendto(sender_.get(), "x", 1, 0,
                   reinterpret_cast<const sockaddr*>(&to), sizeof(to)),
            1)
      << std::strerror(errno);
  std::vector<uint8_t> flow;
  Append(flow, &from.sin_addr, 4);
  Append(flow, &to.sin_addr, 4);
  Append(flow, &from.sin_port, 2);
  Append(flow, &to.sin_port, 2);
  return flow;
}

int TunDevice::QueueOf(uint16_t port) {
  // The kernel sends something of its own when a device comes up.
  for (int round = 0; round < 20; ++round) {
    std::vector<pollfd> readable;
    for (const UniqueFd& queue : queues_) {
      readable.push_back({queue.get(), POLLIN, 0});
    }
    if (poll(readable.data(), readable.size(), 1000) <= 0) return -1;
    for (size_t i = 0; i < readable.size(); ++i) {
      uint8_t packet[2048];
      if ((readable[i].revents & POLLIN) == 0) continue;
      const ssize_t size = read(readable[i].fd, packet, sizeof(packet));
      // IPv4 without options, UDP.
      if (size < 28 || packet[0] != 0x45 || packet[9] != IPPROTO_UDP) continue;
      if ((packet[22] << 8 | packet[23]) == port) return static_cast<int>(i);
    }
  }
  return -1;
}

}  // namespace bpfgrant::test
