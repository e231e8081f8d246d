// tun_steering: the published test vectors of receive-side scaling, and real
// packets through a device with four queues.

#include "bpf-programs/tun_steering/tun_steering.h"

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <netinet/in.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/harness/skip.h"
#include "tests/privileged/loaded_program.h"
#include "tests/privileged/rss_vectors.h"
#include "tests/privileged/tun_device.h"

namespace bpfgrant::test {
namespace {

constexpr uint32_t kAllTypes = TUN_STEERING_IPV4 | TUN_STEERING_TCPV4 |
                               TUN_STEERING_UDPV4 | TUN_STEERING_IPV6 |
                               TUN_STEERING_TCPV6 | TUN_STEERING_UDPV6;

class TunSteeringTest : public PrivilegedTest {
 protected:
  void SetUp() override {
    PrivilegedTest::SetUp();
    if (IsSkipped()) return;
    program_ = LoadedProgram::Load("tun_steering");
    ASSERT_NE(program_, nullptr);
    program_->Write("key", 0, RssKey());
    // An entry is its own number.
    for (uint16_t i = 0; i < TUN_STEERING_TABLE; ++i) {
      program_->Write("indirection", i, i);
    }
  }

  void Configure(uint32_t types, uint16_t length = TUN_STEERING_TABLE,
                 uint16_t default_queue = 999, uint8_t redirect = 1) {
    program_->Write("config", 0,
                    tun_steering_config{.redirect = redirect,
                                        .hash_types = types,
                                        .table_length = length,
                                        .default_queue = default_queue});
  }
  uint32_t Run(const std::vector<char>& frame) { return program_->Run(frame); }
  // Whether the program's hash is that one. The table shows its rest by up to
  // 128; by numbers without a common factor, whose product is above 2^32, that
  // is all of it.
  bool Hashes(const std::vector<char>& frame, uint32_t types, uint32_t hash) {
    for (const uint16_t length : {128, 127, 125, 123, 121}) {
      Configure(types, length);
      if (Run(frame) != hash % length) return false;
    }
    return true;
  }

  std::unique_ptr<LoadedProgram> program_;
};

TEST_F(TunSteeringTest, ThePublishedVectors) {
  for (const RssVector& vector : kRssVectors) {
    SCOPED_TRACE(vector.source);
    for (const uint8_t protocol : {IPPROTO_TCP, IPPROTO_UDP}) {
      const auto frame = Frame(vector, {.protocol = protocol});
      EXPECT_TRUE(Hashes(frame, kAllTypes, vector.tcp));
      EXPECT_TRUE(Hashes(frame, TUN_STEERING_IPV4 | TUN_STEERING_IPV6,
                         vector.addresses));
    }
    EXPECT_TRUE(Hashes(Frame(vector, {.protocol = IPPROTO_ICMP}), kAllTypes,
                       vector.addresses));
  }
}

TEST_F(TunSteeringTest, EachTypeByItself) {
  const auto tcp4 = Frame(kRssVectors[0], {});
  const auto udp4 = Frame(kRssVectors[0], {.protocol = IPPROTO_UDP});
  const auto tcp6 = Frame(kRssVectors[5], {});
  const auto udp6 = Frame(kRssVectors[5], {.protocol = IPPROTO_UDP});
  const auto only = [&](uint32_t type) {
    Configure(type);
    std::string hashed;
    for (const auto* frame : {&tcp4, &udp4, &tcp6, &udp6}) {
      hashed += Run(*frame) == 999 ? '-' : 'x';
    }
    return hashed;
  };
  EXPECT_EQ(only(0), "----");
  EXPECT_EQ(only(TUN_STEERING_TCPV4), "x---");
  EXPECT_EQ(only(TUN_STEERING_UDPV4), "-x--");
  EXPECT_EQ(only(TUN_STEERING_TCPV6), "--x-");
  EXPECT_EQ(only(TUN_STEERING_UDPV6), "---x");
  EXPECT_EQ(only(TUN_STEERING_IPV4), "xx--");
  EXPECT_EQ(only(TUN_STEERING_IPV6), "--xx");
}

TEST_F(TunSteeringTest, WhatHasNoPortsIsHashedByItsAddresses) {
  const RssVector& vector = kRssVectors[0];
  // More fragments; an offset.
  for (const uint16_t fragment : {0x2000, 0x0001}) {
    EXPECT_TRUE(Hashes(Frame(vector, {.fragment = fragment}), kAllTypes,
                       vector.addresses));
  }
  // Do not fragment.
  EXPECT_TRUE(
      Hashes(Frame(vector, {.fragment = 0x4000}), kAllTypes, vector.tcp));
  EXPECT_TRUE(
      Hashes(Frame(kRssVectors[5], {.extensions = {6, 0, 0, 0, 0, 0, 0, 0},
                                    .first_extension = IPPROTO_FRAGMENT}),
             kAllTypes, kRssVectors[5].addresses));
}

TEST_F(TunSteeringTest, BehindOptionsAndExtensionHeaders) {
  EXPECT_TRUE(Hashes(Frame(kRssVectors[0], {.ip_words = 15}), kAllTypes,
                     kRssVectors[0].tcp));
  // Hop-by-hop options of 8 bytes, destination options of 16.
  std::vector<uint8_t> extensions(24);
  extensions[0] = IPPROTO_DSTOPTS;
  extensions[8] = IPPROTO_TCP;
  extensions[9] = 1;
  EXPECT_TRUE(Hashes(
      Frame(kRssVectors[5],
            {.extensions = extensions, .first_extension = IPPROTO_HOPOPTS}),
      kAllTypes, kRssVectors[5].tcp));
  // One after the other without an end.
  std::vector<uint8_t> endless(8 * 20, 0);
  EXPECT_TRUE(
      Hashes(Frame(kRssVectors[5],
                   {.extensions = endless, .first_extension = IPPROTO_HOPOPTS}),
             kAllTypes, kRssVectors[5].addresses));
}

TEST_F(TunSteeringTest, WhatIsCutShort) {
  Configure(kAllTypes);
  auto frame = Frame(kRssVectors[0], {});
  // In the middle of the ports.
  frame.resize(ETH_HLEN + sizeof(iphdr) + 2);
  EXPECT_EQ(Run(frame), kRssVectors[0].addresses % TUN_STEERING_TABLE);
}

TEST_F(TunSteeringTest, ConfigsThatMakeNoSense) {
  const auto frame = Frame(kRssVectors[0], {});
  Configure(kAllTypes, /*length=*/0);
  EXPECT_EQ(Run(frame), 999u);
  // Beyond the table there is no queue.
  Configure(kAllTypes, /*length=*/65535);
  const uint32_t place = kRssVectors[0].tcp % 65535;
  EXPECT_EQ(Run(frame), place < TUN_STEERING_TABLE ? place : 999u);
  Configure(kAllTypes, TUN_STEERING_TABLE, 5, /*redirect=*/0);
  EXPECT_EQ(Run(frame), 5u);
  Configure(~0u);
  EXPECT_EQ(Run(frame), kRssVectors[0].tcp % TUN_STEERING_TABLE);
}

TEST_F(TunSteeringTest, OnceRevokedTheConfigIsNotAsked) {
  Configure(kAllTypes, TUN_STEERING_TABLE, 5, /*redirect=*/0);
  EXPECT_EQ(Run(Frame(kRssVectors[0], {})), 5u);
  program_->SetGate(0);
  EXPECT_EQ(Run(Frame(kRssVectors[0], {})), 0u);
}

// The hash once more, bit by bit as the specification says.
uint32_t Toeplitz(const std::vector<uint8_t>& input) {
  uint32_t hash = 0;
  for (size_t bit = 0; bit < input.size() * 8; ++bit) {
    if ((input[bit / 8] >> (7 - bit % 8) & 1) == 0) continue;
    uint32_t window = 0;
    for (size_t i = bit; i < bit + 32; ++i) {
      window = window << 1 | (kRssKey[i / 8] >> (7 - i % 8) & 1);
    }
    hash ^= window;
  }
  return hash;
}

TEST_F(TunSteeringTest, RealPacketsArriveInTheQueueOfTheirHash) {
  BPFGRANT_REQUIRE_KERNEL(TunDevice::InThisKernel(),
                          "tun devices (CONFIG_TUN)");
  // Its own thread: another network namespace is the thread's.
  std::thread([this] {
    TunDevice device;
    ASSERT_NO_FATAL_FAILURE(device.Make(4));
    ASSERT_EQ(device.Steer(program_->program()), 0) << std::strerror(errno);
    for (uint16_t i = 0; i < TUN_STEERING_TABLE; ++i) {
      program_->Write("indirection", i, static_cast<uint16_t>(i * 7 % 4));
    }
    Configure(kAllTypes);
    std::array<int, 4> used{};
    for (uint16_t port = 5000; port < 5100; ++port) {
      const std::vector<uint8_t> flow = device.SendTo(port);
      const int wanted =
          static_cast<int>(Toeplitz(flow) % TUN_STEERING_TABLE * 7 % 4);
      ASSERT_EQ(device.QueueOf(port), wanted) << port;
      ++used[wanted];
    }
    for (const int packets : used) EXPECT_GT(packets, 0);
    // And all to one, when the table says so.
    for (uint16_t i = 0; i < TUN_STEERING_TABLE; ++i) {
      program_->Write("indirection", i, uint16_t{3});
    }
    for (uint16_t port = 5000; port < 5020; ++port) {
      device.SendTo(port);
      ASSERT_EQ(device.QueueOf(port), 3);
    }
  }).join();
}

}  // namespace
}  // namespace bpfgrant::test
