// tun_steering: the published test vectors of receive-side scaling, and real
// packets through a device with four queues.

#include "bpf-programs/tun_steering/tun_steering.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "proto/wire/unique_fd.h"
#include "tests/harness/skip.h"
#include "tests/privileged/loaded_program.h"
#include "tests/privileged/tun_device.h"

namespace bpfgrant::test {
namespace {

// The key of Microsoft's "Verifying the RSS hash calculation".
constexpr std::array<uint8_t, TUN_STEERING_KEY> kKey = {
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67,
    0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb,
    0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
    0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa};

constexpr uint32_t kAllTypes = TUN_STEERING_IPV4 | TUN_STEERING_TCPV4 |
                               TUN_STEERING_UDPV4 | TUN_STEERING_IPV6 |
                               TUN_STEERING_TCPV6 | TUN_STEERING_UDPV6;

// That document's vectors.
struct Vector {
  const char* destination;
  uint16_t destination_port;
  const char* source;
  uint16_t source_port;
  uint32_t addresses;  // the hash of these alone
  uint32_t tcp;        // and of the ports
};
constexpr Vector kVectors[] = {
    {"161.142.100.80", 1766, "66.9.149.187", 2794, 0x323e8fc2, 0x51ccc178},
    {"65.69.140.83", 4739, "199.92.111.2", 14230, 0xd718262a, 0xc626b0ea},
    {"12.22.207.184", 38024, "24.19.198.95", 12898, 0xd2d0a5de, 0x5c2b394a},
    {"209.142.163.6", 2217, "38.27.205.30", 48228, 0x82989176, 0xafc7327f},
    {"202.188.127.2", 1303, "153.39.163.191", 44251, 0x5d1809c5, 0x10e828a2},
    {"3ffe:2501:200:3::1", 1766, "3ffe:2501:200:1fff::7", 2794, 0x2cc18cd5,
     0x40207d3d},
    {"ff02::1", 4739, "3ffe:501:8::260:97ff:fe40:efab", 14230, 0x0f0c461c,
     0xdde51bbf},
    {"fe80::200:f8ff:fe21:67cf", 38024, "3ffe:1900:4545:3:200:f8ff:fe21:67cf",
     44251, 0x4b61e985, 0x02d1feef},
};

bool IsIpv6(const char* address) {
  return std::strchr(address, ':') != nullptr;
}

// A frame with an IP header and, behind what `extensions` holds, a transport
// header.
struct FrameOptions {
  uint8_t protocol = IPPROTO_TCP;
  uint16_t fragment = 0;  // of IPv4: flags and offset
  uint8_t ip_words = 5;   // of IPv4: the header's length
  std::vector<uint8_t> extensions;
  uint8_t first_extension = 0;
};

template <typename Part>
void Append(std::vector<char>& frame, const Part& part) {
  const auto* bytes = reinterpret_cast<const char*>(&part);
  frame.insert(frame.end(), bytes, bytes + sizeof(part));
}

std::vector<char> Frame(const Vector& vector, const FrameOptions& options) {
  std::vector<char> frame(2 * ETH_ALEN);
  const bool ipv6 = IsIpv6(vector.source);
  Append(frame, htons(ipv6 ? ETH_P_IPV6 : ETH_P_IP));
  if (ipv6) {
    ipv6hdr header{};
    header.version = 6;
    header.nexthdr =
        options.extensions.empty() ? options.protocol : options.first_extension;
    EXPECT_EQ(inet_pton(AF_INET6, vector.source, &header.saddr), 1);
    EXPECT_EQ(inet_pton(AF_INET6, vector.destination, &header.daddr), 1);
    Append(frame, header);
    frame.insert(frame.end(), options.extensions.begin(),
                 options.extensions.end());
  } else {
    iphdr header{};
    header.version = 4;
    header.ihl = options.ip_words;
    header.protocol = options.protocol;
    header.frag_off = htons(options.fragment);
    EXPECT_EQ(inet_pton(AF_INET, vector.source, &header.saddr), 1);
    EXPECT_EQ(inet_pton(AF_INET, vector.destination, &header.daddr), 1);
    Append(frame, header);
    frame.resize(frame.size() + (options.ip_words - 5) * 4);
  }
  Append(frame, htons(vector.source_port));
  Append(frame, htons(vector.destination_port));
  frame.resize(frame.size() + 64);
  return frame;
}

class TunSteeringTest : public PrivilegedTest {
 protected:
  void SetUp() override {
    PrivilegedTest::SetUp();
    if (IsSkipped()) return;
    program_ = LoadedProgram::Load("tun_steering");
    ASSERT_NE(program_, nullptr);
    tun_steering_key key{};
    for (int i = 0; i < 4; ++i) key.first = key.first << 8 | kKey[i];
    std::memcpy(key.rest, kKey.data() + 4, sizeof(key.rest));
    program_->Write("key", 0, key);
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
  for (const Vector& vector : kVectors) {
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
  const auto tcp4 = Frame(kVectors[0], {});
  const auto udp4 = Frame(kVectors[0], {.protocol = IPPROTO_UDP});
  const auto tcp6 = Frame(kVectors[5], {});
  const auto udp6 = Frame(kVectors[5], {.protocol = IPPROTO_UDP});
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
  const Vector& vector = kVectors[0];
  // More fragments; an offset.
  for (const uint16_t fragment : {0x2000, 0x0001}) {
    EXPECT_TRUE(Hashes(Frame(vector, {.fragment = fragment}), kAllTypes,
                       vector.addresses));
  }
  // Do not fragment.
  EXPECT_TRUE(
      Hashes(Frame(vector, {.fragment = 0x4000}), kAllTypes, vector.tcp));
  EXPECT_TRUE(Hashes(Frame(kVectors[5], {.extensions = {6, 0, 0, 0, 0, 0, 0, 0},
                                         .first_extension = IPPROTO_FRAGMENT}),
                     kAllTypes, kVectors[5].addresses));
}

TEST_F(TunSteeringTest, BehindOptionsAndExtensionHeaders) {
  EXPECT_TRUE(
      Hashes(Frame(kVectors[0], {.ip_words = 15}), kAllTypes, kVectors[0].tcp));
  // Hop-by-hop options of 8 bytes, destination options of 16.
  std::vector<uint8_t> extensions(24);
  extensions[0] = IPPROTO_DSTOPTS;
  extensions[8] = IPPROTO_TCP;
  extensions[9] = 1;
  EXPECT_TRUE(Hashes(Frame(kVectors[5], {.extensions = extensions,
                                         .first_extension = IPPROTO_HOPOPTS}),
                     kAllTypes, kVectors[5].tcp));
  // One after the other without an end.
  std::vector<uint8_t> endless(8 * 20, 0);
  EXPECT_TRUE(Hashes(Frame(kVectors[5], {.extensions = endless,
                                         .first_extension = IPPROTO_HOPOPTS}),
                     kAllTypes, kVectors[5].addresses));
}

TEST_F(TunSteeringTest, WhatIsCutShort) {
  Configure(kAllTypes);
  auto frame = Frame(kVectors[0], {});
  // In the middle of the ports.
  frame.resize(ETH_HLEN + sizeof(iphdr) + 2);
  EXPECT_EQ(Run(frame), kVectors[0].addresses % TUN_STEERING_TABLE);
}

TEST_F(TunSteeringTest, ConfigsThatMakeNoSense) {
  const auto frame = Frame(kVectors[0], {});
  Configure(kAllTypes, /*length=*/0);
  EXPECT_EQ(Run(frame), 999u);
  // Beyond the table there is no queue.
  Configure(kAllTypes, /*length=*/65535);
  const uint32_t place = kVectors[0].tcp % 65535;
  EXPECT_EQ(Run(frame), place < TUN_STEERING_TABLE ? place : 999u);
  Configure(kAllTypes, TUN_STEERING_TABLE, 5, /*redirect=*/0);
  EXPECT_EQ(Run(frame), 5u);
  Configure(~0u);
  EXPECT_EQ(Run(frame), kVectors[0].tcp % TUN_STEERING_TABLE);
}

TEST_F(TunSteeringTest, OnceRevokedTheConfigIsNotAsked) {
  Configure(kAllTypes, TUN_STEERING_TABLE, 5, /*redirect=*/0);
  EXPECT_EQ(Run(Frame(kVectors[0], {})), 5u);
  program_->SetGate(0);
  EXPECT_EQ(Run(Frame(kVectors[0], {})), 0u);
}

// The hash once more, bit by bit as the specification says.
uint32_t Toeplitz(const std::vector<uint8_t>& input) {
  uint32_t hash = 0;
  for (size_t bit = 0; bit < input.size() * 8; ++bit) {
    if ((input[bit / 8] >> (7 - bit % 8) & 1) == 0) continue;
    uint32_t window = 0;
    for (size_t i = bit; i < bit + 32; ++i) {
      window = window << 1 | (kKey[i / 8] >> (7 - i % 8) & 1);
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
