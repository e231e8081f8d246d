#include "daemon/broker/bus_calls.h"

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "daemon/broker/bus_limits.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant::broker {
namespace {

// Sessions of calls are numbered apart from those of connections, and on over
// every connection to the bus.
constexpr uint64_t kFirstCall = uint64_t{1} << 63;
uint64_t next_call = kFirstCall;

// "org.bpfgrant1.Error.UnknownGrant". Of its own also where the bus has one, as
// AccessDenied: tools print what they think of those, and not what we say.
std::string ErrorName(v1::Reason reason) {
  std::string name = "org.bpfgrant1.Error.";
  for (const absl::string_view part : absl::StrSplit(ReasonName(reason), '-')) {
    std::string word(part);
    word[0] = absl::ascii_toupper(static_cast<unsigned char>(word[0]));
    name += word;
  }
  return name;
}

// The bus throws out who sends what is not UTF-8, and a message may quote a
// name that was cut.
std::string Printable(const std::string& text) {
  const bool plain = std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isprint(static_cast<unsigned char>(c)) || c == '\n';
  });
  return plain ? text : absl::CHexEscape(text);
}

}  // namespace

BusCalls::BusCalls(BusLink& link, const Parts& parts)
    : link_(link), parts_(parts), callers_(link) {}

BusCalls::~BusCalls() = default;

void BusCalls::Refuse(sd_bus_message* message, const absl::Status& why,
                      const char* name) {
  const v1::Refusal refusal = RefusalOf(why);
  parts_.service.CountRefusal(refusal.reason());
  sd_bus_message* reply = nullptr;
  sd_bus_message_new_method_errorf(
      message, &reply,
      name != nullptr ? name : ErrorName(refusal.reason()).c_str(), "%s",
      Printable(refusal.message()).c_str());
  link_.Send(BusMessage(reply));
}

Session* BusCalls::Find(uint64_t session) {
  const auto found = calls_.find(session);
  return found == calls_.end() ? nullptr : &found->second->session;
}

void BusCalls::Begin(sd_bus_message* message, const char* action,
                     Handler handler) {
  const char* sender = sd_bus_message_get_sender(message);
  if (sender == nullptr) return;  // No bus sends such.
  size_t& of_sender = of_sender_[sender];
  if (parts_.mitigations.bus_calls_per_user &&
      of_sender >= kMaxBusCallsPerUser) {
    Refuse(message,
           bpfgrant::Refuse(v1::REASON_BUSY,
                            "this connection waits for too many answers"));
    return;
  }
  ++of_sender;
  const uint64_t id = next_call++;
  auto call = std::make_unique<Call>();
  call->message.reset(sd_bus_message_ref(message));
  call->action = action;
  call->handler = std::move(handler);
  call->sender = sender;
  call->session.id = id;
  // Before its user is asked for: who leaves later than that is noticed.
  if (action != nullptr) {
    call->end =
        link_.WatchEnd(sender, [this, id](sd_bus_message*) { Drop(id); });
  }
  calls_.emplace(id, std::move(call));
  callers_.Identify(sender, [this, id](const absl::StatusOr<BusCaller>& who) {
    OnCaller(id, who);
  });
}

absl::Status BusCalls::CheckRoom(const Session& session) const {
  if (!parts_.mitigations.bus_calls_per_user) {
    return counted_ < kMaxBusCalls
               ? absl::OkStatus()
               : bpfgrant::Refuse(v1::REASON_BUSY,
                                  "too many calls over the bus are under way");
  }
  const uid_t uid = session.peer.subject.uid;
  const auto of_user = of_user_.find(uid);
  // The last places are root's.
  const size_t places =
      uid == 0 ? kMaxBusCalls : kMaxBusCalls - kMaxBusCallsPerUser;
  if (counted_ < places &&
      (of_user == of_user_.end() || of_user->second < kMaxBusCallsPerUser)) {
    return absl::OkStatus();
  }
  return bpfgrant::Refuse(
      v1::REASON_BUSY,
      absl::StrCat("uid ", uid, " has ",
                   of_user == of_user_.end() ? 0 : of_user->second, " of ",
                   counted_, " calls over the bus under way"));
}

void BusCalls::OnCaller(uint64_t id, const absl::StatusOr<BusCaller>& caller) {
  const auto found = calls_.find(id);
  if (found == calls_.end()) return;
  Call& call = *found->second;
  if (!caller.ok()) return Finish(id, caller.status());
  Peer& peer = call.session.peer;
  peer.pid = caller->pid;
  peer.subject.uid = caller->uid;
  // The bus tells all groups as one; which of them is the first makes no
  // difference to any rule.
  peer.subject.groups = caller->groups;
  peer.subject.gid =
      caller->groups.empty() ? static_cast<gid_t>(-1) : caller->groups.front();
  if (absl::Status room = CheckRoom(call.session); !room.ok()) {
    return Finish(id, room);
  }
  call.counted = true;
  ++counted_;
  ++of_user_[caller->uid];
  call.session.administrator = parts_.is_administrator(peer.subject);
  if (call.action == nullptr || call.session.administrator) {
    Serve(id, call);
  } else if (!parts_.mitigations.bus_authorization) {
    OnVerdict(id, absl::OkStatus());
  } else {
    AskPolkit(id, call);
  }
}

void BusCalls::AskPolkit(uint64_t id, Call& call) {
  const bool interactive = sd_bus_message_get_allow_interactive_authorization(
                               call.message.get()) > 0;
  call.question = PolkitQuestion::Ask(
      link_, call.sender, call.action, interactive,
      interactive ? kAskDeadline : parts_.polkit_deadline,
      [this, id, interactive](const absl::Status& verdict, bool challenge) {
        const auto found = calls_.find(id);
        if (!interactive && challenge && found != calls_.end()) {
          // By this name tools know that they can call again and allow it.
          Refuse(found->second->message.get(), verdict,
                 SD_BUS_ERROR_INTERACTIVE_AUTHORIZATION_REQUIRED);
          Drop(id);
          return;
        }
        OnVerdict(id, verdict);
      });
  if (call.question == nullptr) {
    OnVerdict(id, bpfgrant::Refuse(v1::REASON_NOT_ADMINISTRATOR,
                                   "polkit cannot be asked"));
  }
}

void BusCalls::OnVerdict(uint64_t id, const absl::Status& verdict) {
  const auto found = calls_.find(id);
  if (found == calls_.end()) return;
  if (!verdict.ok()) return Finish(id, verdict);
  found->second->session.administrator = true;
  Serve(id, *found->second);
}

void BusCalls::Serve(uint64_t id, Call& call) {
  Handler handler = std::move(call.handler);
  handler(call.session, [this, id](absl::StatusOr<Fill> result) {
    Finish(id, std::move(result));
  });
}

void BusCalls::Finish(uint64_t id, absl::StatusOr<Fill> result) {
  const auto found = calls_.find(id);
  if (found == calls_.end()) return;  // Its sender has left.
  sd_bus_message* message = found->second->message.get();
  if (!result.ok()) {
    Refuse(message, result.status());
  } else {
    sd_bus_message* made = nullptr;
    if (sd_bus_message_new_method_return(message, &made) >= 0) {
      BusMessage reply(made);
      (*result)(reply.get());
      link_.Send(std::move(reply));
    }
  }
  Drop(id);
}

void BusCalls::Drop(uint64_t id) {
  const auto found = calls_.find(id);
  if (found == calls_.end()) return;
  const std::unique_ptr<Call> call = std::move(found->second);
  calls_.erase(found);
  const auto of_sender = of_sender_.find(call->sender);
  if (--of_sender->second == 0) of_sender_.erase(of_sender);
  if (!call->counted) return;
  --counted_;
  const auto of_user = of_user_.find(call->session.peer.subject.uid);
  if (--of_user->second == 0) of_user_.erase(of_user);
}

}  // namespace bpfgrant::broker
