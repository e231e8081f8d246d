// The calls that came over the bus, from a message to its reply: who calls, how
// many there may be, whether polkit lets it; then the handler that serves the
// sockets, too.
//
// What a method does and who may call it is in bus_methods.cc.

#ifndef DAEMON_BROKER_BUS_CALLS_H_
#define DAEMON_BROKER_BUS_CALLS_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "daemon/broker/bus_callers.h"
#include "daemon/broker/bus_link.h"
#include "daemon/broker/bus_polkit.h"
#include "daemon/broker/service.h"
#include "daemon/mitigations.h"

namespace bpfgrant::broker {

class BusCalls {
 public:
  struct Parts {
    Service& service;
    const daemon::Mitigations& mitigations;
    // By user and groups alone, as on the sockets.
    std::function<bool(const policy::Subject&)> is_administrator;
    std::chrono::milliseconds polkit_deadline;
  };
  // Fills a reply's body in.
  using Fill = absl::AnyInvocable<void(sd_bus_message* reply)>;
  // Called once, at once or later; the call may be gone by then.
  using Answer = absl::AnyInvocable<void(absl::StatusOr<Fill>)>;
  // Serves a call in the name of `session`.
  using Handler = absl::AnyInvocable<void(Session& session, Answer answer)>;

  BusCalls(BusLink& link, const Parts& parts);
  ~BusCalls();
  BusCalls(const BusCalls&) = delete;
  BusCalls& operator=(const BusCalls&) = delete;

  // Has `handler` serve `message` once its sender is known. With an `action`
  // its sender must be an administrator, or be allowed that action by polkit,
  // which makes it one for this call; nullptr: anybody may.
  void Begin(sd_bus_message* message, const char* action, Handler handler);
  // Replies at once that `message` is refused.
  void Refuse(sd_bus_message* message, const absl::Status& why) {
    Refuse(message, why, nullptr);
  }

  // The session of a call; nullptr: none.
  Session* Find(uint64_t session);
  Service& service() { return parts_.service; }
  const daemon::Mitigations& mitigations() const { return parts_.mitigations; }

 private:
  // With an error of that name; nullptr: as the reason has it.
  void Refuse(sd_bus_message* message, const absl::Status& why,
              const char* name);
  struct Call {
    BusMessage message;
    const char* action = nullptr;
    Handler handler;
    std::string sender;
    bool counted = false;  // as one of its user's
    Session session;
    std::unique_ptr<BusRequest> end;  // of the sender
    std::unique_ptr<PolkitQuestion> question;
  };
  void OnCaller(uint64_t id, const absl::StatusOr<BusCaller>& caller);
  void OnVerdict(uint64_t id, const absl::Status& verdict);
  void AskPolkit(uint64_t id, Call& call);
  void Serve(uint64_t id, Call& call);
  void Finish(uint64_t id, absl::StatusOr<Fill> result);
  // Takes it out; nothing is replied.
  void Drop(uint64_t id);
  absl::Status CheckRoom(const Session& session) const;

  BusLink& link_;
  Parts parts_;
  BusCallers callers_;
  absl::btree_map<uint64_t, std::unique_ptr<Call>> calls_;
  absl::flat_hash_map<std::string, size_t> of_sender_;
  absl::flat_hash_map<uid_t, size_t> of_user_;
  size_t counted_ = 0;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_BUS_CALLS_H_
