#include "tests/privileged/rss_vectors.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include <cstring>

#include "gtest/gtest.h"

namespace bpfgrant::test {
namespace {

bool IsIpv6(const char* address) {
  return std::strchr(address, ':') != nullptr;
}

template <typename Part>
void Append(std::vector<char>& frame, const Part& part) {
  const auto* bytes = reinterpret_cast<const char*>(&part);
  frame.insert(frame.end(), bytes, bytes + sizeof(part));
}

}  // namespace

tun_steering_key RssKey() {
  tun_steering_key key{};
  for (int i = 0; i < 4; ++i) key.first = key.first << 8 | kRssKey[i];
  std::memcpy(key.rest, kRssKey.data() + 4, sizeof(key.rest));
  return key;
}

std::vector<char> Frame(const RssVector& vector, const FrameOptions& options) {
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

}  // namespace bpfgrant::test
