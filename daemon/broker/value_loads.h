// How often each user may have an instance loaded for values of parameters that
// none is ready for: each costs the loader, which all share, a verification.

#ifndef DAEMON_BROKER_VALUE_LOADS_H_
#define DAEMON_BROKER_VALUE_LOADS_H_

#include <sys/types.h>

#include "absl/container/flat_hash_map.h"
#include "daemon/broker/allowance.h"

namespace bpfgrant::broker {

class ValueLoads {
 public:
  using Clock = Allowance::Clock;

  // One more of that user's: kValueLoadsAtOnce after a rest, and from then on
  // kValueLoadsPerMinute. False: not yet.
  bool Take(uid_t uid, Clock::time_point now);

 private:
  absl::flat_hash_map<uid_t, Allowance> left_;  // of those that have not rested
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_VALUE_LOADS_H_
