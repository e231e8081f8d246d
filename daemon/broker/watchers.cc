#include "daemon/broker/watchers.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace bpfgrant::broker {

int64_t UnixMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

uint64_t Watchers::Add(uid_t uid, bool administrator, Sink sink) {
  const uint64_t id = next_++;
  watchers_.emplace(id, Watcher{uid, administrator, std::move(sink)});
  return id;
}

void Watchers::Remove(uint64_t watcher) { watchers_.erase(watcher); }

size_t Watchers::Of(uid_t uid) const {
  return static_cast<size_t>(std::count_if(
      watchers_.begin(), watchers_.end(),
      [uid](const auto& entry) { return entry.second.uid == uid; }));
}

void Watchers::Publish(v1::Event event, uint64_t except) const {
  if (watchers_.empty()) return;
  event.set_at_unix_ms(UnixMs());
  for (const auto& [id, watcher] : watchers_) {
    if (id == except) continue;
    if (watcher.administrator ||
        (event.has_grant() && event.grant().uid() == watcher.uid)) {
      watcher.sink(event);
    }
  }
}

}  // namespace bpfgrant::broker
