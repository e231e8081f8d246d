// Asks systemd which job it has queued for the daemon's own unit: whether a
// SIGTERM means a restart.

#ifndef DAEMON_BROKER_BUS_JOB_H_
#define DAEMON_BROKER_BUS_JOB_H_

#include <chrono>
#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "daemon/broker/bus_link.h"

namespace bpfgrant::broker {

class BusJob {
 public:
  // `done` hears the job's type, "" if there is none or it cannot be told;
  // once, within kJobDeadline, also if this is destroyed before.
  using Done = absl::AnyInvocable<void(std::string type)>;

  BusJob(EventLoop& loop, BusLink& link, Done done);
  ~BusJob();
  BusJob(const BusJob&) = delete;
  BusJob& operator=(const BusJob&) = delete;

 private:
  void Ask(BusMessage call, void (BusJob::*next)(sd_bus_message* reply));
  // The property of an object of systemd's.
  BusMessage PropertyOf(const char* path, const char* interface,
                        const char* name);
  void OnUnit(sd_bus_message* reply);
  void OnJob(sd_bus_message* reply);
  void OnType(sd_bus_message* reply);
  void Finish(std::string type);

  BusLink& link_;
  Done done_;
  EventLoop::Source deadline_;
  std::unique_ptr<BusRequest> request_;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_BUS_JOB_H_
