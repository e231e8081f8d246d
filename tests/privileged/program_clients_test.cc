// Programs of the catalog in the hands of a client without privilege, by way of
// the daemon.

#include <cerrno>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bpfgrant/programs/flow_filter.h"
#include "bpfgrant/programs/tun_steering.h"
#include "client/bpfgrant/attach.h"
#include "client/bpfgrant/mapped_array.h"
#include "client/bpfgrant/ring_buffer.h"
#include "client/bpfgrant/user_ring_buffer.h"
#include "gtest/gtest.h"
#include "tests/harness/as_nobody.h"
#include "tests/harness/skip.h"
#include "tests/privileged/loopback.h"
#include "tests/privileged/tun_device.h"

namespace bpfgrant::test {
namespace {

class FlowFilterClientTest : public NobodyTest {
 protected:
  FlowFilterClientTest() : NobodyTest("flow_filter") {}

  void Block(UserRingBuffer& commands, const char (&address)[4]) {
    auto sample = commands.Reserve(sizeof(flow_filter_command));
    ASSERT_TRUE(sample.ok()) << sample.status();
    flow_filter_command command{};
    command.verb = FLOW_FILTER_ADD;
    command.list = FLOW_FILTER_BLOCK;
    command.family = 4;
    command.prefix_length = 32;
    std::memcpy(command.address, address, sizeof(address));
    std::memcpy(sample->data(), &command, sizeof(command));
    commands.Submit(*sample);
  }
};

TEST_F(FlowFilterClientTest, FeedsAFilterOnItsOwnSocket) {
  BPFGRANT_AS_NOBODY();
  UdpSocket receiver, good("127.0.0.2"), bad("127.0.0.3");
  auto grant = AttachTo(connection(),
                        {.program = "flow_filter",
                         .interface = FLOW_FILTER_INTERFACE,
                         .interface_hash = FLOW_FILTER_INTERFACE_HASH},
                        receiver.fd(), SocketHook::kFilter);
  ASSERT_TRUE(grant.ok()) << grant.status();
  auto commands = UserRingBuffer::Map(**grant->Find("commands"));
  ASSERT_TRUE(commands.ok()) << commands.status();
  bad.SendTo(receiver.port(), "bad");
  EXPECT_EQ(receiver.Receive(), "bad");
  Block(*commands, {127, 0, 0, 3});
  bad.SendTo(receiver.port(), "bad");
  good.SendTo(receiver.port(), "good");
  EXPECT_EQ(receiver.Receive(), "good");
  EXPECT_EQ(receiver.Drain(), 0);
  EXPECT_EQ(commands->pending(), 0u);
  // Given back, it drops everything, and obeys nobody.
  ASSERT_TRUE(grant->Release().ok());
  Block(*commands, {127, 0, 0, 2});
  good.SendTo(receiver.port(), "good");
  EXPECT_EQ(receiver.Drain(), 0);
  EXPECT_GT(commands->pending(), 0u);
}

class TunSteeringClientTest : public NobodyTest {
 protected:
  static constexpr int kFirst = 10, kSecond = 11;

  TunSteeringClientTest() : NobodyTest("tun_steering") {}

  // The device is made by somebody who may; its queues are handed over.
  std::vector<std::pair<int, int>> FdsForNobody() override {
    if (!TunDevice::InThisKernel()) return {};
    device_.Make(2);
    if (HasFatalFailure()) return {};
    return {{device_.queues()[0].get(), kFirst},
            {device_.queues()[1].get(), kSecond}};
  }

  TunDevice device_;
};

TEST_F(TunSteeringClientTest, SteersTheQueuesThatItHolds) {
  BPFGRANT_REQUIRE_KERNEL(IsNobody() || TunDevice::InThisKernel(),
                          "tun devices (CONFIG_TUN)");
  BPFGRANT_AS_NOBODY();
  device_.Adopt({kFirst, kSecond});
  auto grant =
      connection().Acquire({.program = "tun_steering",
                            .interface = TUN_STEERING_INTERFACE,
                            .interface_hash = TUN_STEERING_INTERFACE_HASH});
  ASSERT_TRUE(grant.ok()) << grant.status();
  auto mapped = MappedArray::Map(**grant->Find("config"));
  ASSERT_TRUE(mapped.ok()) << mapped.status();
  auto* const config = mapped->At<tun_steering_config>(0);
  ASSERT_NE(config, nullptr);
  ASSERT_EQ(device_.Steer(grant->program_fd()), 0) << std::strerror(errno);
  for (const uint16_t queue : {1, 0, 1}) {
    config->default_queue = queue;
    for (uint16_t port = 5000; port < 5010; ++port) {
      device_.SendTo(port);
      EXPECT_EQ(device_.QueueOf(port), queue);
    }
  }
  // Given back, it steers no more, and nothing is lost.
  ASSERT_TRUE(grant->Release().ok());
  device_.SendTo(5000);
  EXPECT_GE(device_.QueueOf(5000), 0);
}

}  // namespace
}  // namespace bpfgrant::test
