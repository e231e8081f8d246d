// The service manager's fd store (sd_notify(3), FDSTORE=1): fds of which it
// keeps a copy while this daemon is being restarted, for the next one to find.
//
// Both processes of the daemon have one of these, each for what it made itself.
// Nobody waits for the service manager here: what it has no room for at the
// moment waits in a queue, and is lost with this process if that dies first.

#ifndef DAEMON_FD_STORE_H_
#define DAEMON_FD_STORE_H_

#include <cstddef>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::daemon {

// By name. Who put it there is in the name's first word.
using StoredFds = std::multimap<std::string, UniqueFd>;

class FdStore {
 public:
  // What the service manager says in $NOTIFY_SOCKET and $FDSTORE, of which the
  // latter is how many fds it keeps: half of them are for this process. Without
  // either it keeps none, and Put is refused.
  static FdStore FromEnvironment();
  // One that keeps none.
  FdStore() = default;

  bool keeps() const { return limit_ > 0; }
  size_t size() const { return fds_; }  // fds of this process
  size_t limit() const { return limit_; }
  size_t queued() const { return queue_.size(); }

  // Has copies of `fds`, at most 253, kept under `name` (ASCII, no colon, at
  // most 255 bytes), which must be new. In which order they come back is not
  // said. False: there is no store, no room in it, or no fd for a copy; then
  // none is kept.
  bool Put(const std::string& name, absl::Span<const int> fds);
  // Nothing is kept under that name any more. Nothing happens if nothing was.
  void Remove(const std::string& name);
  // What an earlier daemon put there, `fds` of them, is this one's.
  void Adopt(const std::string& name, size_t fds);

  // What to wait for (EPOLLOUT, POLLOUT) while something is queued; -1: there
  // is no store.
  int fd() const { return socket_.get(); }
  // Sends what there is room for.
  void Flush();

 private:
  struct Message {
    std::string text;
    std::vector<UniqueFd> fds;
  };

  void Send(Message message);
  bool TrySend(const Message& message);

  size_t limit_ = 0;
  UniqueFd socket_;
  std::map<std::string, size_t> names_;  // how many fds each has
  size_t fds_ = 0;
  size_t bytes_ = 0;  // of their names, as the next daemon gets them
  std::deque<Message> queue_;
};

}  // namespace bpfgrant::daemon

#endif  // DAEMON_FD_STORE_H_
