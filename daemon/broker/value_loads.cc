#include "daemon/broker/value_loads.h"

#include "proto/wire/limits.h"

namespace bpfgrant::broker {
namespace {

// Users who are remembered before those that have rested are looked for.
constexpr size_t kManyUsers = 1024;
constexpr double kSecondsPerMinute = 60;

}  // namespace

bool ValueLoads::Take(uid_t uid, Clock::time_point now) {
  if (left_.size() > kManyUsers) {
    absl::erase_if(left_, [now](auto& one) { return one.second.IsFull(now); });
  }
  return left_
      .try_emplace(uid, kValueLoadsAtOnce,
                   kValueLoadsPerMinute / kSecondsPerMinute, now)
      .first->second.Take(1, now);
}

}  // namespace bpfgrant::broker
