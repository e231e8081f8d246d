// Waits, off the loop's thread, until no program run that began before is still
// under way: one grace period of RCU, by membarrier(2) with
// MEMBARRIER_CMD_GLOBAL, which is synchronize_rcu in kernel/sched/membarrier.c.
//
// On a machine with one CPU the kernel answers at once. Sleepable programs are
// not waited for.

#ifndef DAEMON_BROKER_GRACE_PERIOD_H_
#define DAEMON_BROKER_GRACE_PERIOD_H_

#include <functional>
#include <memory>

#include "daemon/broker/event_loop.h"

namespace bpfgrant::broker {

class GracePeriod {
 public:
  explicit GracePeriod(EventLoop& loop);
  // Nothing is called any more. A thread that the kernel does not let go is
  // left behind, with what it needs.
  ~GracePeriod();

  // Calls `done` on the loop's thread after a grace period that begins now or
  // later. Waits that come while one is under way share the next. Where the
  // kernel has no such call (nohz_full), it is never called.
  void Wait(std::function<void()> done);

  // Whether this kernel tells when a grace period is over. With one processor
  // it answers at once, which is true unless a run can be preempted
  // (`preemptible`); with nohz_full never.
  static bool IsKnown(bool preemptible);

 private:
  struct Shared;
  static void RunThread(std::shared_ptr<Shared> shared);

  std::shared_ptr<Shared> shared_;
  // Started with the first wait: a daemon that never revokes has none.
  bool started_ = false;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_GRACE_PERIOD_H_
