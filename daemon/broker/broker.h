// The broker: the process without privilege that clients speak to. Builds its
// parts and runs them.

#ifndef DAEMON_BROKER_BROKER_H_
#define DAEMON_BROKER_BROKER_H_

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "daemon/broker/accept.h"
#include "daemon/broker/identify.h"
#include "daemon/fd_store.h"
#include "daemon/mitigations.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::broker {

struct BrokerOptions {
  UniqueFd loader;  // the socketpair's end
  UniqueFd broker_listener;
  UniqueFd control_listener;
  // What an earlier broker left in the service manager's store.
  daemon::StoredFds found;
  uid_t uid = 0;
  gid_t gid = 0;
  std::optional<gid_t> administrator_group;
  IdentifyBy identify = IdentifyBy::kBest;
  AcceptLimits accept;
  uint64_t pool_bytes = 0;
  uint32_t grants_per_session = 0;
  std::chrono::milliseconds polkit_deadline{0};
  // For Status alone.
  std::vector<std::string> catalog_directories;
  std::vector<std::string> key_directories;
  std::vector<std::string> policy_directories;
  std::vector<std::string> admission_files;
  daemon::Mitigations mitigations;
};

// Drops privilege, waits for the loader's catalog and policy, and serves until
// SIGTERM, SIGINT, or the loader's end. Returns the process's exit status.
int RunBroker(BrokerOptions options);

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_BROKER_H_
