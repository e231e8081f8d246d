// Packets with fds over AF_UNIX sockets: the one place that knows SCM_RIGHTS
// and SCM_CREDENTIALS. Used by client, broker and loader alike.
//
// It must not know what the bytes mean.

#ifndef PROTO_WIRE_MESSAGE_SOCKET_H_
#define PROTO_WIRE_MESSAGE_SOCKET_H_

#include <sys/types.h>

#include <cstddef>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant {

// Who the kernel says sent a packet (SCM_CREDENTIALS, unix(7)).
struct Credentials {
  pid_t pid = 0;
  uid_t uid = 0;
  gid_t gid = 0;
  bool operator==(const Credentials&) const = default;
};

struct Packet {
  std::string_view bytes;     // in the buffer given to ReceivePacket
  std::vector<UniqueFd> fds;  // close-on-exec from birth
  std::optional<Credentials> credentials;  // with SO_PASSCRED only
};

// Receives one packet into `buffer`, without waiting.
//
// Errors: kUnavailable: nothing there now. kOutOfRange: the peer is gone.
// kInvalidArgument: a packet larger than the buffer, more than `max_fds` fds,
// or control data of a kind nobody asked for; all its fds are closed, and the
// connection should be ended. kResourceExhausted: control data was cut off
// (MSG_CTRUNC): this process has no room for more fds; the packet is lost and
// all its fds are closed. kInternal: any other errno of recvmsg(2).
absl::StatusOr<Packet> ReceivePacket(int socket, absl::Span<char> buffer,
                                     size_t max_fds);

// Sends one packet, whole or not at all, without waiting. The fds remain the
// caller's. `credentials`, if given, are checked by the kernel; a sender
// without privilege can name itself only, by any of its real, effective and
// saved ids.
//
// Errors: kUnavailable: the peer's queue is full. kOutOfRange: the peer is
// gone. kResourceExhausted: too many fds in flight (ETOOMANYREFS) or no memory.
// kInternal: any other errno of sendmsg(2).
absl::Status SendPacket(int socket, std::string_view bytes,
                        absl::Span<const int> fds,
                        std::optional<Credentials> credentials = std::nullopt);

// The numbers of `fds`, for SendPacket.
std::vector<int> Numbers(absl::Span<const UniqueFd> fds);

// Whether the peer of this connected socket has read all that was sent to it
// (SIOCOUTQ, tcp(7)).
bool AllRead(int socket);

}  // namespace bpfgrant

#endif  // PROTO_WIRE_MESSAGE_SOCKET_H_
