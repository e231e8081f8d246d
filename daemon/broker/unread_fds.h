// How many fds are in flight to each user's sockets: sent, and not read yet.
//
// The kernel counts them for the daemon as a whole and refuses to send more
// beyond a limit (ETOOMANYREFS); so that peers who do not read cannot use that
// limit up for everybody, each user has a share of it.

#ifndef DAEMON_BROKER_UNREAD_FDS_H_
#define DAEMON_BROKER_UNREAD_FDS_H_

#include <sys/types.h>

#include <cstddef>

#include "absl/container/flat_hash_map.h"

namespace bpfgrant::broker {

class UnreadFds {
 public:
  void Add(uid_t uid, size_t count) { of_user_[uid] += count; }
  void Remove(uid_t uid, size_t count) {
    const auto found = of_user_.find(uid);
    if (found == of_user_.end()) return;
    found->second -= count < found->second ? count : found->second;
    if (found->second == 0) of_user_.erase(found);
  }
  size_t Of(uid_t uid) const {
    const auto found = of_user_.find(uid);
    return found == of_user_.end() ? 0 : found->second;
  }

 private:
  absl::flat_hash_map<uid_t, size_t> of_user_;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_UNREAD_FDS_H_
