#include "daemon/broker/value_loads.h"

#include <algorithm>

#include "proto/wire/limits.h"

namespace bpfgrant::broker {
namespace {

// Users who are remembered before those that have rested are looked for.
constexpr size_t kManyUsers = 1024;

}  // namespace

bool ValueLoads::Take(uid_t uid, Clock::time_point now) {
  if (left_.size() > kManyUsers) {
    absl::erase_if(left_, [now](const auto& one) {
      return CountAt(one.second, now) >= kValueLoadsAtOnce;
    });
  }
  Left& left = left_.try_emplace(uid, Left{double{kValueLoadsAtOnce}, now})
                   .first->second;
  left = {CountAt(left, now), now};
  if (left.count < 1) return false;
  left.count -= 1;
  return true;
}

double ValueLoads::CountAt(const Left& left, Clock::time_point now) {
  const std::chrono::duration<double, std::ratio<60>> minutes = now - left.at;
  return std::min<double>(
      kValueLoadsAtOnce,
      left.count + minutes.count() * double{kValueLoadsPerMinute});
}

}  // namespace bpfgrant::broker
