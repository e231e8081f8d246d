// The daemon on the system bus: org.bpfgrant1, for administrators and their
// tools. Comes and goes with the bus; nothing else depends on it.
//
// It must decide nothing that the sockets' handlers decide, and never wait.

#ifndef DAEMON_BROKER_BUS_H_
#define DAEMON_BROKER_BUS_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "daemon/broker/allowance.h"
#include "daemon/broker/event_loop.h"
#include "daemon/broker/service.h"
#include "daemon/broker/session.h"
#include "daemon/broker/watchers.h"
#include "daemon/mitigations.h"

namespace bpfgrant::broker {

class BusCalls;
class BusLink;
class BusRequest;

class Bus {
 public:
  struct Parts {
    EventLoop& loop;
    Service& service;
    Watchers& watchers;
    const daemon::Mitigations& mitigations;
    // By user and groups alone, as on the sockets.
    std::function<bool(const policy::Subject&)> is_administrator;
    // How long polkit may take to answer for a call that asks nobody.
    std::chrono::milliseconds polkit_deadline;
  };

  explicit Bus(Parts parts);
  ~Bus();

  // Gets on the bus, now or when there is one, and back on it when it went.
  void Start();
  // Off it, for good. Calls under way are not answered.
  void Stop();

  // "org.bpfgrant1", or "nowhere: " and why.
  std::string Where() const;
  // The session of a call under way; nullptr: there is none of that number.
  Session* Find(uint64_t session);

 private:
  void Connect();
  void OnName(const std::string& refused);
  void OnLost(const std::string& why);
  void OnEvent(const v1::Event& event);
  bool MaySignal();
  void TellSkipped();

  Parts parts_;
  std::string why_not_ = "not started";  // empty: it is there
  std::chrono::milliseconds back_off_;
  bool stopped_ = false;
  EventLoop::Source again_;
  uint64_t watcher_ = 0;  // 0: none
  Allowance signals_;
  uint64_t skipped_ = 0;  // signals that were not sent
  EventLoop::Source skipped_timer_;
  // In the order in which they stand on each other.
  std::unique_ptr<BusLink> link_;
  std::unique_ptr<BusCalls> calls_;
  std::unique_ptr<BusRequest> name_;  // asked for
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_BUS_H_
