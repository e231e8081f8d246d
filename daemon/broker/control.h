// control.sock: the service over gRPC, for languages without our library.
//
// gRPC's threads parse and wait; each call runs on the loop's thread, in the
// same handler as one from the broker socket. They share nothing with the loop
// but its queue. A call names its session by the token in the metadata key
// kTokenKey; without one there are only health and reflection.

#ifndef DAEMON_BROKER_CONTROL_H_
#define DAEMON_BROKER_CONTROL_H_

#include <sys/types.h>

#include <memory>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "daemon/broker/accept.h"
#include "daemon/broker/event_loop.h"
#include "daemon/broker/service.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::broker {

class Control {
 public:
  struct Parts {
    EventLoop& loop;
    Service& service;
    Watchers& watchers;
    Acceptor& sessions;
  };

  // `listener` is bound and listens.
  Control(Parts parts, UniqueFd listener);
  ~Control();

  // Starts gRPC and begins to accept. kInternal if gRPC cannot start.
  absl::Status Start();
  // Ends all calls and connections. Sessions must have been ended before.
  void Stop();

 private:
  struct Peer {
    uid_t uid;
    // A second fd of the connection: gRPC does not tell when it is over, the
    // kernel does.
    UniqueFd watched;
    EventLoop::Source source;
  };

  void OnReadable();
  void Admit(UniqueFd socket);
  void OnOver(uint64_t id);

  Parts parts_;
  UniqueFd listener_;
  // Given up for a moment to accept and close a peer when there is no other fd.
  UniqueFd reserve_;
  EventLoop::Source source_;
  absl::flat_hash_map<uint64_t, std::unique_ptr<Peer>> peers_;
  absl::flat_hash_map<uid_t, size_t> of_user_;
  uint64_t next_id_ = 1;
  struct Server;
  std::unique_ptr<Server> server_;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_CONTROL_H_
