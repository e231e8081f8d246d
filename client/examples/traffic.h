// Datagrams on loopback, numbered, so that what was received and what was
// sampled can be checked against what was sent.

#ifndef CLIENT_EXAMPLES_TRAFFIC_H_
#define CLIENT_EXAMPLES_TRAFFIC_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::example {

// One datagram's payload.
struct Numbered {
  uint64_t magic;
  uint64_t number;
};
inline constexpr uint64_t kMagic = 0x746e617267667062;  // "bpfgrant"

// A UDP socket bound on 127.0.0.1, and one connected to it.
struct UdpPair {
  UniqueFd receiver;
  UniqueFd sender;
};
absl::StatusOr<UdpPair> OpenUdpPair();

// Sends `count` datagrams, numbered from `first`.
absl::Status SendNumbered(int socket, uint64_t first, size_t count);

// The number in the payload that starts `offset` bytes into `bytes`; a negative
// one if it is none of ours.
int64_t NumberAt(absl::Span<const std::byte> bytes, size_t offset);

}  // namespace bpfgrant::example

#endif  // CLIENT_EXAMPLES_TRAFFIC_H_
