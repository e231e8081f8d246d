// Asks polkit whether somebody on the bus may do something. It decides nothing
// itself, and whoever asks goes on meanwhile.

#ifndef DAEMON_BROKER_BUS_POLKIT_H_
#define DAEMON_BROKER_BUS_POLKIT_H_

#include <chrono>
#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "daemon/broker/bus_link.h"

namespace bpfgrant::broker {

// A question under way. Destroying it tells polkit that the answer, and the
// person who may be asked for it, are needed no more.
class PolkitQuestion {
 public:
  // OK: it may. REASON_NOT_ADMINISTRATOR: it may not, nobody can tell, or
  // polkit did not answer. `challenge`: it might, if somebody authenticated.
  using Done = absl::AnyInvocable<void(const absl::Status&, bool challenge)>;

  // About the connection with that unique name. `interactive`: a person may be
  // asked. nullptr: it could not be sent, and `done` is not called.
  static std::unique_ptr<PolkitQuestion> Ask(
      BusLink& link, const std::string& name, const std::string& action,
      bool interactive, std::chrono::milliseconds deadline, Done done);
  ~PolkitQuestion();
  PolkitQuestion(const PolkitQuestion&) = delete;
  PolkitQuestion& operator=(const PolkitQuestion&) = delete;

 private:
  PolkitQuestion(BusLink& link, std::string action, std::string id, Done done)
      : link_(link),
        action_(std::move(action)),
        id_(std::move(id)),
        done_(std::move(done)) {}
  void OnReply(sd_bus_message* reply);
  void Cancel();

  BusLink& link_;
  const std::string action_;
  const std::string id_;  // by which it can be cancelled
  Done done_;
  bool answered_ = false;
  std::unique_ptr<BusRequest> request_;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_BUS_POLKIT_H_
