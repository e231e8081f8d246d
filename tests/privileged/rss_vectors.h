// The published test vectors of receive-side scaling (Microsoft, "Verifying the
// RSS hash calculation"), and frames of their flows.

#ifndef TESTS_PRIVILEGED_RSS_VECTORS_H_
#define TESTS_PRIVILEGED_RSS_VECTORS_H_

#include <netinet/in.h>

#include <array>
#include <cstdint>
#include <vector>

#include "bpf-programs/tun_steering/tun_steering.h"

namespace bpfgrant::test {

inline constexpr std::array<uint8_t, TUN_STEERING_KEY> kRssKey = {
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67,
    0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb,
    0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
    0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa};

// That key as the program wants it.
tun_steering_key RssKey();

struct RssVector {
  const char* destination;
  uint16_t destination_port;
  const char* source;
  uint16_t source_port;
  uint32_t addresses;  // the hash of these alone
  uint32_t tcp;        // and of the ports
};
inline constexpr RssVector kRssVectors[] = {
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

// A frame with an IP header and, behind what `extensions` holds, a transport
// header.
struct FrameOptions {
  uint8_t protocol = IPPROTO_TCP;
  uint16_t fragment = 0;  // of IPv4: flags and offset
  uint8_t ip_words = 5;   // of IPv4: the header's length
  std::vector<uint8_t> extensions;
  uint8_t first_extension = 0;
};

// Ethernet's header in front.
std::vector<char> Frame(const RssVector& vector,
                        const FrameOptions& options = {});

}  // namespace bpfgrant::test

#endif  // TESTS_PRIVILEGED_RSS_VECTORS_H_
