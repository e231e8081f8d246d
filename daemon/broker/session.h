// One client's session: who it is, and what it holds.

#ifndef DAEMON_BROKER_SESSION_H_
#define DAEMON_BROKER_SESSION_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "bpfgrant/v1/messages.pb.h"
#include "daemon/broker/gates.h"
#include "daemon/broker/identify.h"
#include "daemon/broker/ledger_file.h"

namespace bpfgrant::broker {

struct Session {
  uint64_t id = 0;
  Peer peer;
  // What all its grants of one program share (SCOPE_SESSION), by the program's
  // identity: made with the first of them.
  struct Shared {
    bool loading = false;
    std::vector<UniqueFd> maps;
    Gates::Gate gate;      // of the load that made them
    v1::GrantInfo holder;  // the grant it was for
    std::optional<LedgerFile::Place> record;
  };
  absl::btree_map<std::string, Shared> shared;
  std::string token;  // empty until Hello is answered
  bool administrator = false;
  absl::btree_set<uint64_t> grants;
  size_t waiting = 0;    // requests that wait for the loader
  size_t unclaimed = 0;  // grants whose fds the daemon still holds
  // Tells the client of something, on its own connection.
  std::function<void(const v1::Event&)> notify;
  uint64_t watch = 0;  // its subscription; 0: none
  // Event streams over gRPC, by their subscriptions; called when the session is
  // over.
  absl::btree_map<uint64_t, std::function<void()>> streams;
  uint64_t trace = 0;   // what it reads on its own connection; 0: nothing
  uint64_t traced = 0;  // of which grant that is
  // Traces over gRPC, by their readers; likewise.
  absl::btree_map<uint64_t, std::function<void()>> traces;
  // The number of the frame that is being served; 0: the call came over gRPC.
  uint64_t request = 0;
  // It was sent before, to a daemon that was restarted: what it has done
  // already is not done again.
  bool resent = false;
  // In the ledger's file; none: the session ends with this daemon.
  std::optional<LedgerFile::Place> record;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_SESSION_H_
