// Who wants to hear of grants that begin and end.

#ifndef DAEMON_BROKER_WATCHERS_H_
#define DAEMON_BROKER_WATCHERS_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>

#include "absl/container/btree_map.h"
#include "bpfgrant/v1/messages.pb.h"

namespace bpfgrant::broker {

class Watchers {
 public:
  using Sink = std::function<void(const v1::Event&)>;

  // `sink` hears of the grants of `uid`; of everybody's, and of reloads, if
  // `administrator`. It must not add or remove watchers itself.
  uint64_t Add(uid_t uid, bool administrator, Sink sink);
  void Remove(uint64_t watcher);
  // How many `uid` has.
  size_t Of(uid_t uid) const;

  // Fills in the time and tells everyone concerned but `except`.
  void Publish(v1::Event event, uint64_t except = 0) const;

 private:
  struct Watcher {
    uid_t uid;
    bool administrator;
    Sink sink;
  };
  absl::btree_map<uint64_t, Watcher> watchers_;
  uint64_t next_ = 1;
};

// Milliseconds since 1970.
int64_t UnixMs();

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_WATCHERS_H_
