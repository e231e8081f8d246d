// The ledger: who holds what, and how much of it.

#ifndef DAEMON_BROKER_LEDGER_H_
#define DAEMON_BROKER_LEDGER_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "bpfgrant/v1/messages.pb.h"
#include "daemon/broker/event_loop.h"
#include "daemon/broker/pool.h"
#include "daemon/broker/snapshot.h"

namespace bpfgrant::broker {

// One grant, from the moment it counts to the moment its gate is closed.
struct Grant {
  v1::GrantInfo info;
  Instance instance;  // its fds: until they are delivered, then none
  // Which handles the client asked for, as indices into the catalog's.
  std::vector<int> handles;
  // Its swappable maps, by the bits of its gate's slot.
  std::vector<std::string> swappable;
  bool loaded = false;  // `instance` is there; before, it is being loaded
  // As the catalog described it when it was asked for; until it is delivered.
  std::shared_ptr<const Program> program;
  EventLoop::Source claim_deadline;
};

class Ledger {
 public:
  // Enters a grant under the next id, which is set in its info. Valid until
  // Remove.
  Grant& Add(Grant grant);
  // nullptr: no such grant.
  Grant* Find(uint64_t id);
  // Takes it out; `id` must be there.
  Grant Remove(uint64_t id);

  // Grants that `uid` holds under `rule`.
  uint32_t InUse(const std::string& rule, uid_t uid) const;
  uint32_t OfProgram(const std::string& program) const;
  size_t size() const { return grants_.size(); }
  uint64_t total() const { return next_ - 1; }

  // Calls `visit` for each grant behind `after`, by id, until it returns false.
  void ForEach(uint64_t after,
               absl::FunctionRef<bool(const Grant&)> visit) const;
  // The ids of those for which `matches` holds.
  std::vector<uint64_t> Select(
      absl::FunctionRef<bool(const Grant&)> matches) const;

 private:
  void Count(const v1::GrantInfo& info, int change);

  absl::btree_map<uint64_t, Grant> grants_;
  absl::flat_hash_map<std::pair<std::string, uid_t>, uint32_t> in_use_;
  absl::flat_hash_map<std::string, uint32_t> of_program_;
  uint64_t next_ = 1;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_LEDGER_H_
