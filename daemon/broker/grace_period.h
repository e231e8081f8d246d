// Waits, off the loop's thread, until no program run that began before is still
// under way: one grace period of RCU, of which the loader's keeper tells
// (daemon/loader/grace_keeper.h). Programs that sleep are not waited for.

#ifndef DAEMON_BROKER_GRACE_PERIOD_H_
#define DAEMON_BROKER_GRACE_PERIOD_H_

#include <functional>
#include <memory>

#include "daemon/broker/event_loop.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::broker {

class GracePeriod {
 public:
  // `keeper` answers each byte with one, a grace period later.
  GracePeriod(EventLoop& loop, UniqueFd keeper);
  // Nothing is called any more. A thread that the kernel does not let go is
  // left behind, with what it needs.
  ~GracePeriod();

  // Calls `done` on the loop's thread after a grace period that begins now or
  // later. Waits that come while one is under way share the next. Never called
  // once the keeper is gone.
  void Wait(std::function<void()> done);

 private:
  struct Shared;
  static void RunThread(std::shared_ptr<Shared> shared);

  std::shared_ptr<Shared> shared_;
  // Started with the first wait: a daemon that never revokes has none.
  bool started_ = false;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_GRACE_PERIOD_H_
