// How often each user may have an instance loaded for values of parameters that
// none is ready for: each costs the loader, which all share, a verification.

#ifndef DAEMON_BROKER_VALUE_LOADS_H_
#define DAEMON_BROKER_VALUE_LOADS_H_

#include <sys/types.h>

#include <chrono>

#include "absl/container/flat_hash_map.h"

namespace bpfgrant::broker {

class ValueLoads {
 public:
  using Clock = std::chrono::steady_clock;

  // One more of that user's: kValueLoadsAtOnce after a rest, and from then on
  // kValueLoadsPerMinute. False: not yet.
  bool Take(uid_t uid, Clock::time_point now);

 private:
  // Loads that are left, as of a moment.
  struct Left {
    double count;
    Clock::time_point at;
  };
  static double CountAt(const Left& left, Clock::time_point now);

  absl::flat_hash_map<uid_t, Left> left_;  // of those that have not rested
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_VALUE_LOADS_H_
