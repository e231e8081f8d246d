#include "daemon/broker/bus_polkit.h"

#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::broker {
namespace {

constexpr char kPolkit[] = "org.freedesktop.PolicyKit1";
constexpr char kPath[] = "/org/freedesktop/PolicyKit1/Authority";
constexpr char kInterface[] = "org.freedesktop.PolicyKit1.Authority";
constexpr uint32_t kAllowInteraction = 1;

absl::Status Denied(const std::string& message) {
  return Refuse(v1::REASON_NOT_ADMINISTRATOR, message);
}

bool IsTimeout(const sd_bus_error& error) {
  return sd_bus_error_has_name(&error, SD_BUS_ERROR_NO_REPLY) ||
         sd_bus_error_has_name(&error, SD_BUS_ERROR_TIMEOUT) ||
         sd_bus_error_has_name(&error, "System.Error.ETIMEDOUT");
}

struct Verdict {
  absl::Status status;
  bool challenge = false;
  bool timed_out = false;
};

Verdict ReadError(const sd_bus_error& error, const std::string& action) {
  if (IsTimeout(error)) {
    return {Denied(absl::StrCat("polkit did not answer about ", action)), false,
            true};
  }
  return {Denied(absl::StrCat("polkit cannot tell about ", action, " (",
                              error.name, ")"))};
}

// What polkit's reply says about `action`.
Verdict Read(sd_bus_message* reply, const std::string& action) {
  if (const sd_bus_error* error = sd_bus_message_get_error(reply)) {
    return ReadError(*error, action);
  }
  int authorized = 0;
  int challenge = 0;
  if (sd_bus_message_enter_container(reply, 'r', "bba{ss}") <= 0 ||
      sd_bus_message_read(reply, "bb", &authorized, &challenge) <= 0) {
    return {Denied(
        absl::StrCat("polkit says nothing that makes sense about ", action))};
  }
  if (authorized != 0) return {};
  return {Denied(absl::StrCat(
              "polkit does not allow ", action,
              challenge != 0 ? ": somebody would have to authenticate" : "")),
          challenge != 0};
}

}  // namespace

std::unique_ptr<PolkitQuestion> PolkitQuestion::Ask(
    BusLink& link, const std::string& name, const std::string& action,
    bool interactive, std::chrono::milliseconds deadline, Done done) {
  static uint64_t number = 0;
  std::unique_ptr<PolkitQuestion> question(new PolkitQuestion(
      link, action, absl::StrCat("bpfgrant", ++number), std::move(done)));
  BusMessage call =
      link.NewCall(kPolkit, kPath, kInterface, "CheckAuthorization");
  if (call == nullptr ||
      sd_bus_message_append(call.get(), "(sa{sv})sa{ss}us", "system-bus-name",
                            1, "name", "s", name.c_str(), action.c_str(), 0,
                            interactive ? kAllowInteraction : 0,
                            question->id_.c_str()) < 0) {
    question->answered_ = true;
    return nullptr;
  }
  question->request_ = link.Ask(
      std::move(call), deadline,
      [self = question.get()](sd_bus_message* reply) { self->OnReply(reply); });
  if (question->request_ == nullptr) {
    question->answered_ = true;
    return nullptr;
  }
  return question;
}

PolkitQuestion::~PolkitQuestion() {
  if (!answered_) Cancel();
}

void PolkitQuestion::OnReply(sd_bus_message* reply) {
  const Verdict verdict = Read(reply, action_);
  // It may still be asking somebody.
  if (verdict.timed_out) Cancel();
  answered_ = true;
  // It may destroy this.
  Done done = std::move(done_);
  done(verdict.status, verdict.challenge);
}

void PolkitQuestion::Cancel() {
  BusMessage call =
      link_.NewCall(kPolkit, kPath, kInterface, "CancelCheckAuthorization");
  if (call == nullptr) return;
  sd_bus_message_append(call.get(), "s", id_.c_str());
  sd_bus_message_set_expect_reply(call.get(), 0);
  sd_bus_message_set_auto_start(call.get(), 0);
  link_.Send(std::move(call));
}

}  // namespace bpfgrant::broker
