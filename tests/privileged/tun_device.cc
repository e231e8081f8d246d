#include "tests/privileged/tun_device.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
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
constexpr char kName[] = "steered";
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
  ASSERT_NO_FATAL_FAILURE(OpenQueues(queues));
  ifreq request{};
  std::strcpy(request.ifr_name, kName);
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
  packets_.reset(socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ASSERT_TRUE(packets_.valid()) << std::strerror(errno);
}

void TunDevice::OpenQueues(int count) {
  for (int i = 0; i < count; ++i) {
    queues_.push_back(Open(IFF_TUN | IFF_MULTI_QUEUE));
    ASSERT_TRUE(queues_.back().valid()) << std::strerror(errno);
  }
}

void TunDevice::Adopt(const std::vector<int>& queues, int packets) {
  for (const int queue : queues) queues_.emplace_back(queue);
  if (packets >= 0) packets_.reset(packets);
}

UniqueFd TunDevice::Open(int flags) {
  UniqueFd queue(open(kNode, O_RDWR | O_CLOEXEC | O_NONBLOCK));
  ifreq request{};
  std::strcpy(request.ifr_name, kName);
  request.ifr_flags = static_cast<short>(flags | IFF_NO_PI);
  if (ioctl(queue.get(), TUNSETIFF, &request) < 0) return UniqueFd();
  return queue;
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
  return QueueOf([port](const Packet& packet) {
    // IPv4 without options, UDP.
    const auto byte = [&packet](size_t i) {
      return static_cast<uint8_t>(packet[i]);
    };
    return packet.size() >= 28 && byte(0) == 0x45 && byte(9) == IPPROTO_UDP &&
           (byte(22) << 8 | byte(23)) == port;
  });
}

int TunDevice::Inject(const std::vector<char>& frame) {
  const Packet sent(frame.begin() + ETH_HLEN, frame.end());
  sockaddr_ll to{};
  to.sll_family = AF_PACKET;
  std::memcpy(&to.sll_protocol, &frame[2 * ETH_ALEN], sizeof(to.sll_protocol));
  to.sll_ifindex = static_cast<int>(if_nametoindex(kName));
  EXPECT_EQ(sendto(packets_.get(), sent.data(), sent.size(), 0,
                   reinterpret_cast<const sockaddr*>(&to), sizeof(to)),
            static_cast<ssize_t>(sent.size()))
      << std::strerror(errno);
  return QueueOf([&sent](const Packet& packet) { return packet == sent; });
}

int TunDevice::QueueOf(const std::function<bool(const Packet&)>& is_it) {
  // The kernel sends something of its own when a device comes up.
  for (int round = 0; round < 20; ++round) {
    std::vector<pollfd> readable;
    for (const UniqueFd& queue : queues_) {
      readable.push_back({queue.get(), POLLIN, 0});
    }
    if (poll(readable.data(), readable.size(), 1000) <= 0) return -1;
    for (size_t i = 0; i < readable.size(); ++i) {
      if ((readable[i].revents & POLLIN) == 0) continue;
      Packet packet(2048);
      const ssize_t size = read(readable[i].fd, packet.data(), packet.size());
      if (size < 0) continue;
      packet.resize(static_cast<size_t>(size));
      if (is_it(packet)) return static_cast<int>(i);
    }
  }
  return -1;
}

}  // namespace bpfgrant::test
