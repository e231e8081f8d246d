#include "daemon/broker/kept_values.h"

#include <algorithm>

#include "proto/wire/limits.h"

namespace bpfgrant::broker {

std::vector<std::string> KeptValues::Touch(uid_t uid, const std::string& key) {
  Forget(key);
  std::vector<std::string> evicted;
  const auto of_user =
      std::count_if(kept_.begin(), kept_.end(),
                    [uid](const Kept& kept) { return kept.uid == uid; });
  if (static_cast<size_t>(of_user) >= kKeptValuesPerUser) {
    evicted.push_back(TakeOldest(&uid));
  } else if (kept_.size() >= kKeptValues) {
    evicted.push_back(TakeOldest(of_user > 0 ? &uid : nullptr));
  }
  kept_.push_back({uid, key});
  return evicted;
}

void KeptValues::Forget(const std::string& key) {
  kept_.remove_if([&](const Kept& kept) { return kept.key == key; });
}

std::string KeptValues::TakeOldest(const uid_t* uid) {
  const auto oldest = std::find_if(
      kept_.begin(), kept_.end(),
      [uid](const Kept& kept) { return uid == nullptr || kept.uid == *uid; });
  std::string key = std::move(oldest->key);
  kept_.erase(oldest);
  return key;
}

}  // namespace bpfgrant::broker
