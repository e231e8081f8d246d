// What the service manager's watchdog hears (WatchdogSec=): that this loop
// turns and that the loader answers. Whoever of the two hangs, the other alone
// would be no daemon.
//
// It must not do anything about a loader that keeps silent: that is the service
// manager's, which restarts the daemon.

#ifndef DAEMON_BROKER_WATCHDOG_H_
#define DAEMON_BROKER_WATCHDOG_H_

#include <chrono>

#include "daemon/broker/event_loop.h"
#include "daemon/broker/loader_client.h"

namespace bpfgrant::broker {

class Watchdog {
 public:
  // Both must outlive it.
  Watchdog(EventLoop& loop, LoaderClient& loader)
      : loop_(loop), loader_(loader) {}

  // Says WATCHDOG=1, and again in each third of the time that the service
  // manager gives (WATCHDOG_USEC, WATCHDOG_PID: sd_watchdog_enabled(3)), each
  // time after the loader has answered a question. Does nothing where no
  // watchdog is set.
  void Start();
  // Says nothing more.
  void Stop();

 private:
  void Ask();
  void OnAnswer(bool answered);

  EventLoop& loop_;
  LoaderClient& loader_;
  EventLoop::Source timer_;
  std::chrono::milliseconds interval_{0};  // 0: there is no watchdog
  bool silent_ = false;  // the loader has not answered the last question
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_WATCHDOG_H_
