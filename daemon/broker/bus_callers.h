// Who sends a message on the bus: the bus itself says, and never the message.
//
// A unique name is never given to another while a bus lives, so what was said
// of one stays true; of another bus nothing of it does.

#ifndef DAEMON_BROKER_BUS_CALLERS_H_
#define DAEMON_BROKER_BUS_CALLERS_H_

#include <sys/types.h>

#include <cstddef>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "daemon/broker/bus_link.h"

namespace bpfgrant::broker {

struct BusCaller {
  std::string name;  // unique: ":1.42"
  // As the kernel told the bus when it connected.
  uid_t uid = 0;
  std::vector<gid_t> groups;  // empty: not told
  pid_t pid = 0;              // another's by now, if that process has ended
};

class BusCallers {
 public:
  using Done = absl::AnyInvocable<void(const absl::StatusOr<BusCaller>&)>;

  explicit BusCallers(BusLink& link) : link_(link) {}

  // Calls `done` at once if `name` has been asked about before, else when the
  // bus has answered; never after this is gone. REASON_PEER_UNNAMED: it is gone
  // already, or the bus cannot tell. REASON_BUSY: it waits for too many
  // answers.
  void Identify(const std::string& name, Done done);

 private:
  struct Question {
    std::unique_ptr<BusRequest> request;
    std::vector<Done> waiting;
  };
  void OnAnswer(const std::string& name, sd_bus_message* reply);
  void Keep(const BusCaller& caller);

  BusLink& link_;
  absl::flat_hash_map<std::string, Question> asked_;
  absl::flat_hash_map<std::string, BusCaller> known_;
  std::deque<std::string> order_;  // of known_, the oldest first
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_BUS_CALLERS_H_
