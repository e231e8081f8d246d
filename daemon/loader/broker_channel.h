// The loader's end of the socket pair: requests as they come, replies queued
// until the broker has room for them.

#ifndef DAEMON_LOADER_BROKER_CHANNEL_H_
#define DAEMON_LOADER_BROKER_CHANNEL_H_

#include <deque>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bpfgrant/daemon/loader.pb.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::daemon {

class BrokerChannel {
 public:
  explicit BrokerChannel(UniqueFd socket);

  struct Request {
    LoaderRequest message;
    std::vector<UniqueFd> fds;
  };

  // The next request; never waits.
  // kUnavailable: none is there, or replies are piling up. kOutOfRange: the
  // broker is gone. Any other: a packet that no correct broker sends.
  absl::StatusOr<Request> Receive();

  // Queues a reply and sends what can be sent. A reply whose fds the kernel has
  // no room for is replaced by a refusal, REASON_BUSY.
  // kOutOfRange: the broker is gone.
  absl::Status Send(LoaderReply message, std::vector<UniqueFd> fds);
  // Sends what is queued, as far as there is room.
  absl::Status Flush();

  // What to poll(2) the socket for.
  short events() const;
  // Remains owned.
  int fd() const { return socket_.get(); }

 private:
  struct Reply {
    uint64_t id;
    std::string bytes;
    std::vector<UniqueFd> fds;
  };

  bool IsFull() const;

  UniqueFd socket_;
  std::vector<char> buffer_;
  std::deque<Reply> queue_;
};

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_BROKER_CHANNEL_H_
