#include "daemon/broker/bus_callers.h"

#include <algorithm>
#include <chrono>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/broker/bus_limits.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::broker {
namespace {

constexpr char kBus[] = "org.freedesktop.DBus";

// Reads one number that the bus told as a variant.
uint32_t ReadNumber(sd_bus_message* reply) {
  uint32_t number = 0;
  sd_bus_message_read(reply, "v", "u", &number);
  return number;
}

void ReadGroups(sd_bus_message* reply, std::vector<gid_t>& groups) {
  if (sd_bus_message_enter_container(reply, 'v', "au") <= 0) return;
  if (sd_bus_message_enter_container(reply, 'a', "u") > 0) {
    for (uint32_t group; sd_bus_message_read(reply, "u", &group) > 0;) {
      groups.push_back(group);
    }
    sd_bus_message_exit_container(reply);
  }
  sd_bus_message_exit_container(reply);
}

// Of GetConnectionCredentials: a dictionary, of which every entry but the uid
// may be missing.
absl::StatusOr<BusCaller> Read(const std::string& name, sd_bus_message* reply) {
  const auto unnamed = [&] {
    return Refuse(v1::REASON_PEER_UNNAMED,
                  absl::StrCat("the bus does not say who ", name, " is"));
  };
  if (sd_bus_message_is_method_error(reply, nullptr) ||
      sd_bus_message_enter_container(reply, 'a', "{sv}") <= 0) {
    return unnamed();
  }
  BusCaller caller;
  caller.name = name;
  bool has_user = false;
  while (sd_bus_message_enter_container(reply, 'e', "sv") > 0) {
    const char* text = nullptr;
    if (sd_bus_message_read(reply, "s", &text) <= 0) return unnamed();
    const std::string_view key = text;
    if (key == "UnixUserID") {
      caller.uid = ReadNumber(reply);
      has_user = true;
    } else if (key == "ProcessID") {
      caller.pid = static_cast<pid_t>(ReadNumber(reply));
    } else if (key == "UnixGroupIDs") {
      ReadGroups(reply, caller.groups);
    } else {
      sd_bus_message_skip(reply, "v");
    }
    if (sd_bus_message_exit_container(reply) < 0) return unnamed();
  }
  if (!has_user || caller.uid == static_cast<uid_t>(-1)) return unnamed();
  return caller;
}

}  // namespace

void BusCallers::Identify(const std::string& name, Done done) {
  if (const auto known = known_.find(name); known != known_.end()) {
    done(known->second);
    return;
  }
  if (const auto asked = asked_.find(name); asked != asked_.end()) {
    asked->second.waiting.push_back(std::move(done));
    return;
  }
  const absl::Status busy =
      Refuse(v1::REASON_BUSY, "too many on the bus are being identified");
  if (asked_.size() >= kMaxBusStrangers) {
    done(busy);
    return;
  }
  BusMessage call = link_.NewCall(kBus, "/org/freedesktop/DBus", kBus,
                                  "GetConnectionCredentials");
  if (call != nullptr) sd_bus_message_append(call.get(), "s", name.c_str());
  auto request =
      link_.Ask(std::move(call), kBusAnswerDeadline,
                [this, name](sd_bus_message* reply) { OnAnswer(name, reply); });
  if (request == nullptr) {
    done(busy);
    return;
  }
  Question& question = asked_[name];
  question.request = std::move(request);
  question.waiting.push_back(std::move(done));
}

void BusCallers::OnAnswer(const std::string& name, sd_bus_message* reply) {
  const absl::StatusOr<BusCaller> caller = Read(name, reply);
  auto question = asked_.extract(name);
  if (caller.ok()) Keep(*caller);
  for (Done& done : question.mapped().waiting) done(caller);
}

void BusCallers::Keep(const BusCaller& caller) {
  if (order_.size() >= kKeptBusCallers) {
    known_.erase(order_.front());
    order_.pop_front();
  }
  if (known_.emplace(caller.name, caller).second) {
    order_.push_back(caller.name);
  }
}

}  // namespace bpfgrant::broker
