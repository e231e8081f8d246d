// One connection to the system bus, driven by the event loop: sends, asks with
// a deadline, and dispatches one message a turn, so that whoever floods the bus
// holds up nobody on the sockets.
//
// It must never wait: no call of sd-bus that needs an answer is made in place.
// What the messages mean is not its business.

#ifndef DAEMON_BROKER_BUS_LINK_H_
#define DAEMON_BROKER_BUS_LINK_H_

#include <systemd/sd-bus.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "daemon/broker/event_loop.h"

namespace bpfgrant::broker {

struct BusUnref {
  void operator()(sd_bus* bus) const { sd_bus_close_unref(bus); }
  void operator()(sd_bus_slot* slot) const { sd_bus_slot_unref(slot); }
  void operator()(sd_bus_message* message) const {
    sd_bus_message_unref(message);
  }
};
using BusMessage = std::unique_ptr<sd_bus_message, BusUnref>;

// Something asked of another on the bus, or watched for there. Destroying it
// takes it back.
class BusRequest {
 public:
  using Done = absl::AnyInvocable<void(sd_bus_message* reply)>;

  BusRequest(const BusRequest&) = delete;
  BusRequest& operator=(const BusRequest&) = delete;

 private:
  friend class BusLink;
  explicit BusRequest(Done done) : done_(std::move(done)) {}
  static int OnReply(sd_bus_message* reply, void* self, sd_bus_error*);

  Done done_;
  std::unique_ptr<sd_bus_slot, BusUnref> slot_;
};

class BusLink {
 public:
  // Begins to connect to the system bus (DBUS_SYSTEM_BUS_ADDRESS, as
  // everywhere). `on_lost` is called once, from the loop, with why: it could
  // not be reached, or is gone.
  static absl::StatusOr<std::unique_ptr<BusLink>> Open(
      EventLoop& loop, std::function<void(const std::string& why)> on_lost);
  ~BusLink();
  BusLink(const BusLink&) = delete;
  BusLink& operator=(const BusLink&) = delete;

  sd_bus* bus() { return bus_.get(); }
  // Whether a message is being dispatched: then this must not be destroyed.
  bool in_turn() const { return in_turn_; }

  // A call to be filled in; nullptr: out of memory.
  BusMessage NewCall(const char* destination, const char* path,
                     const char* interface, const char* member);
  // Sends what was made; whether it arrives is not known.
  void Send(BusMessage message);
  // Sends a call. `done` hears the reply, which may be an error, made up if
  // none came before the deadline. nullptr: it could not be sent, and `done` is
  // not called.
  std::unique_ptr<BusRequest> Ask(BusMessage call,
                                  std::chrono::milliseconds deadline,
                                  BusRequest::Done done);
  // `done` hears once of the end of `name`'s owner, a unique name. nullptr as
  // above.
  std::unique_ptr<BusRequest> WatchEnd(const std::string& name,
                                       BusRequest::Done done);
  // To be called when sd-bus was given something to send other than by this.
  void Arm();
  // As if the bus had gone.
  void Fail(const std::string& why);

 private:
  BusLink(EventLoop& loop, std::function<void(const std::string&)> on_lost)
      : loop_(loop), on_lost_(std::move(on_lost)) {}
  void Turn();

  EventLoop& loop_;
  std::function<void(const std::string&)> on_lost_;
  std::unique_ptr<sd_bus, BusUnref> bus_;
  EventLoop::Source io_;
  EventLoop::Source timer_;
  EventLoop::Source failed_;
  int watched_fd_ = -1;
  uint64_t timer_until_ = 0;  // microseconds of CLOCK_MONOTONIC
  bool in_turn_ = false;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_BUS_LINK_H_
