// Waits, off the loop's thread, until no program run that began before is still
// under way: one grace period of RCU, by membarrier(2) with
// MEMBARRIER_CMD_GLOBAL, which is synchronize_rcu in kernel/sched/membarrier.c.
//
// On a machine with one CPU the kernel answers at once. Sleepable programs are
// not waited for.

#ifndef DAEMON_BROKER_GRACE_PERIOD_H_
#define DAEMON_BROKER_GRACE_PERIOD_H_

#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "daemon/broker/event_loop.h"

namespace bpfgrant::broker {

class GracePeriod {
 public:
  explicit GracePeriod(EventLoop& loop) : loop_(loop) {}
  // Gives the thread up if the kernel never answers it.
  ~GracePeriod();

  // Calls `done` on the loop's thread after a grace period that begins now or
  // later. Waits that come while one is under way share the next.
  void Wait(std::function<void()> done);

 private:
  void RunThread();

  EventLoop& loop_;
  absl::Mutex mutex_;
  std::vector<std::function<void()>> waiting_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  bool idle_ ABSL_GUARDED_BY(mutex_) = true;
  // Started with the first wait: a daemon that never revokes has none.
  std::thread thread_;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_GRACE_PERIOD_H_
