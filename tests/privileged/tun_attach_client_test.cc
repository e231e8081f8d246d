// A client that the policy does not trust, with a tun device of four queues:
// which packets arrive where, whichever way the program was attached.

#include <fcntl.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "bpf-programs/tun_steering/tun_steering.h"
#include "client/bpfgrant/attach.h"
#include "client/bpfgrant/mapped_array.h"
#include "gtest/gtest.h"
#include "tests/harness/as_nobody.h"
#include "tests/harness/skip.h"
#include "tests/privileged/rss_vectors.h"
#include "tests/privileged/tun_device.h"

namespace bpfgrant::test {
namespace {

constexpr int kQueues = 4;
// Packets that everybody can tell apart: one of each flow.
constexpr int kFlows = std::size(kRssVectors);

// A grant with its maps.
struct Steering {
  Grant grant;
  MappedArray config, key, indirection;

  tun_steering_config& settings() { return *config.At<tun_steering_config>(0); }
};

class TunAttachClientTest : public NobodyTest {
 protected:
  static constexpr int kFirst = 10, kPackets = kFirst + kQueues;

  TunAttachClientTest() : NobodyTest("tun_steering") {}

  void SetUp() override {
    BPFGRANT_REQUIRE_KERNEL(IsNobody() || TunDevice::InThisKernel(),
                            "tun devices (CONFIG_TUN)");
    NobodyTest::SetUp();
    if (!IsNobody()) return;
    std::vector<int> queues;
    for (int i = 0; i < kQueues; ++i) queues.push_back(kFirst + i);
    device_.Adopt(queues, kPackets);
  }
  std::string Policy() override {
    return R"(
      rule {
        name: "untrusted"
        effect: ALLOW
        everyone: true
        program: "*"
        quota { grants: 8 }
      })";
  }
  // The device is made by somebody who may, and belongs to somebody else.
  std::vector<std::pair<int, int>> FdsForNobody() override {
    device_.Make(kQueues);
    if (HasFatalFailure()) return {};
    EXPECT_EQ(ioctl(device_.queues()[0].get(), TUNSETOWNER, 12345), 0);
    std::vector<std::pair<int, int>> fds{{device_.packets().get(), kPackets}};
    for (int i = 0; i < kQueues; ++i) {
      fds.emplace_back(device_.queues()[i].get(), kFirst + i);
    }
    return fds;
  }

  int queue() const { return device_.queues().front().get(); }
  static Connection::AcquireOptions Wanted() {
    return {.program = "tun_steering", .interface = "tun_steering/1"};
  }
  // By the daemon, whatever the kernel.
  absl::StatusOr<Grant> AcquireAttached() {
    Connection::AcquireOptions options = Wanted();
    options.delivery = v1::DELIVERY_ATTACH;
    options.target = queue();
    return connection().Acquire(options);
  }
  static absl::StatusOr<Steering> Map(absl::StatusOr<Grant> grant) {
    if (!grant.ok()) return grant.status();
    auto config = MappedArray::Map(**grant->Find("config"));
    auto key = MappedArray::Map(**grant->Find("key"));
    auto indirection = MappedArray::Map(**grant->Find("indirection"));
    for (const auto* map : {&config, &key, &indirection}) {
      if (!map->ok()) return map->status();
    }
    return Steering{*std::move(grant), *std::move(config), *std::move(key),
                    *std::move(indirection)};
  }
  // The hash of every flow decides, modulo the queues.
  static void Spread(Steering& steering) {
    *steering.key.At<tun_steering_key>(0) = RssKey();
    for (uint16_t i = 0; i < TUN_STEERING_TABLE; ++i) {
      *steering.indirection.At<uint16_t>(i) = i % kQueues;
    }
    steering.settings() = {
        .redirect = 1,
        .hash_types = TUN_STEERING_TCPV4 | TUN_STEERING_TCPV6,
        .table_length = TUN_STEERING_TABLE};
  }
  void ExpectThePublishedQueues() {
    std::array<int, kQueues> used{};
    for (const RssVector& vector : kRssVectors) {
      const int wanted = static_cast<int>(vector.tcp % kQueues);
      EXPECT_EQ(device_.Inject(Frame(vector)), wanted) << vector.source;
      ++used[wanted];
    }
    for (const int packets : used) EXPECT_GT(packets, 0);
  }
  // How many of the flows arrive in that queue; each must arrive somewhere.
  int ArriveIn(int queue) {
    int packets = 0;
    for (const RssVector& vector : kRssVectors) {
      const int arrived = device_.Inject(Frame(vector));
      EXPECT_GE(arrived, 0) << vector.source;
      packets += arrived == queue;
    }
    return packets;
  }

  TunDevice device_;
};

TEST_F(TunAttachClientTest, ThePublishedVectorsArriveInTheirQueues) {
  BPFGRANT_AS_NOBODY();
  auto steering =
      Map(AttachTo(connection(), Wanted(), queue(), TunHook::kSteering));
  ASSERT_TRUE(steering.ok()) << steering.status();
  Spread(*steering);
  ExpectThePublishedQueues();
  const auto status = connection().Status();
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_EQ(steering->grant.delivery(), status->kernel().preemptible()
                                            ? v1::DELIVERY_ATTACH
                                            : v1::DELIVERY_PROGRAM);
}

TEST_F(TunAttachClientTest, TheDaemonAttachesOnEveryKernel) {
  BPFGRANT_AS_NOBODY();
  auto steering = Map(AcquireAttached());
  ASSERT_TRUE(steering.ok()) << steering.status();
  EXPECT_EQ(steering->grant.program_fd(), -1);
  Spread(*steering);
  ExpectThePublishedQueues();
}

TEST_F(TunAttachClientTest, GivenBackItSteersNoMoreAndNothingIsLost) {
  BPFGRANT_AS_NOBODY();
  auto steering = Map(AcquireAttached());
  ASSERT_TRUE(steering.ok()) << steering.status();
  steering->settings().default_queue = 3;
  EXPECT_EQ(ArriveIn(3), kFlows);
  ASSERT_TRUE(steering->grant.Release().ok());
  EXPECT_LT(ArriveIn(3), kFlows);
}

TEST_F(TunAttachClientTest, TheNextAttachmentReplacesTheFirst) {
  BPFGRANT_AS_NOBODY();
  auto first = Map(AcquireAttached());
  ASSERT_TRUE(first.ok()) << first.status();
  first->settings().default_queue = 3;
  EXPECT_EQ(ArriveIn(3), kFlows);
  auto second = Map(AcquireAttached());
  ASSERT_TRUE(second.ok()) << second.status();
  second->settings().default_queue = 2;
  EXPECT_EQ(ArriveIn(2), kFlows);
  ASSERT_TRUE(second->grant.Release().ok());
  EXPECT_LT(ArriveIn(3), kFlows) << "the first is back";
}

// The kernel asks neither for the device's owner nor for a privilege, and has
// no lock: the daemon gives nobody a power over devices that they had not.
TEST_F(TunAttachClientTest, WhoeverHasAQueueCanTakeItOff) {
  BPFGRANT_AS_NOBODY();
  auto steering = Map(AcquireAttached());
  ASSERT_TRUE(steering.ok()) << steering.status();
  steering->settings().default_queue = 3;
  EXPECT_EQ(ArriveIn(3), kFlows);
  ASSERT_EQ(device_.Steer(-1), 0) << std::strerror(errno);
  EXPECT_LT(ArriveIn(3), kFlows);
}

}  // namespace
}  // namespace bpfgrant::test
