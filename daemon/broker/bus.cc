#include "daemon/broker/bus.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/broker/bus_calls.h"
#include "daemon/broker/bus_limits.h"
#include "daemon/broker/bus_link.h"
#include "daemon/broker/bus_methods.h"
#include "proto/refusal/refusal.h"
#include "spdlog/spdlog.h"

namespace bpfgrant::broker {

Bus::Bus(Parts parts)
    : parts_(std::move(parts)),
      back_off_(kMinBusBackOff),
      signals_(kBusSignalBurst, kBusSignalsPerSecond, Allowance::Clock::now()) {
}

Bus::~Bus() = default;

void Bus::Start() { Connect(); }

void Bus::Stop() {
  stopped_ = true;
  // A call that came over the bus may be what stops the daemon.
  if (link_ == nullptr || !link_->in_turn()) OnLost("the daemon stops");
}

std::string Bus::Where() const {
  return why_not_.empty() ? kBusName : absl::StrCat("nowhere: ", why_not_);
}

Session* Bus::Find(uint64_t session) {
  return calls_ == nullptr ? nullptr : calls_->Find(session);
}

void Bus::Connect() {
  again_ = EventLoop::Source();
  auto link = BusLink::Open(parts_.loop,
                            [this](const std::string& why) { OnLost(why); });
  if (!link.ok()) {
    OnLost(std::string(link.status().message()));
    return;
  }
  link_ = *std::move(link);
  calls_ = std::make_unique<BusCalls>(
      *link_, BusCalls::Parts{parts_.service, parts_.mitigations,
                              parts_.is_administrator, parts_.polkit_deadline});
  if (AddBusObject(link_->bus(), *calls_) < 0) {
    OnLost("out of memory");
    return;
  }
  BusMessage call =
      link_->NewCall("org.freedesktop.DBus", "/org/freedesktop/DBus",
                     "org.freedesktop.DBus", "RequestName");
  // Not to be queued behind another owner: 4.
  if (call != nullptr) sd_bus_message_append(call.get(), "su", kBusName, 4);
  name_ = link_->Ask(
      std::move(call), kBusAnswerDeadline, [this](sd_bus_message* reply) {
        uint32_t owner = 0;
        if (const sd_bus_error* error = sd_bus_message_get_error(reply)) {
          OnName(absl::StrCat("the bus refuses the name: ", error->name));
        } else if (sd_bus_message_read(reply, "u", &owner) <= 0 || owner != 1) {
          OnName("another has the name");
        } else {
          OnName("");
        }
      });
  if (name_ == nullptr) link_->Fail("out of memory");
}

void Bus::OnName(const std::string& refused) {
  if (!refused.empty()) {
    link_->Fail(refused);
    return;
  }
  why_not_.clear();
  back_off_ = kMinBusBackOff;
  spdlog::info("on the system bus as {}", kBusName);
  watcher_ =
      parts_.watchers.Add(0, /*administrator=*/true,
                          [this](const v1::Event& event) { OnEvent(event); });
}

void Bus::OnLost(const std::string& why) {
  // A bus that was never there is nothing to warn of again and again.
  if (why_not_ != why && !stopped_) {
    spdlog::log(why_not_.empty() ? spdlog::level::warn : spdlog::level::info,
                "not on the system bus: {}", why);
  }
  why_not_ = why;
  if (watcher_ != 0) parts_.watchers.Remove(std::exchange(watcher_, 0));
  skipped_timer_ = EventLoop::Source();
  skipped_ = 0;
  name_.reset();
  calls_.reset();
  link_.reset();
  if (stopped_) {
    again_ = EventLoop::Source();
    return;
  }
  again_ = parts_.loop.Timer(back_off_, [this] { Connect(); });
  back_off_ = std::min(back_off_ * 2, kMaxBusBackOff);
}

bool Bus::MaySignal() {
  if (!parts_.mitigations.bus_signal_rate ||
      signals_.Take(1, Allowance::Clock::now())) {
    return true;
  }
  ++skipped_;
  if (!skipped_timer_.active()) {
    skipped_timer_ =
        parts_.loop.Timer(kBusSkippedInterval, [this] { TellSkipped(); });
  }
  return false;
}

void Bus::TellSkipped() {
  skipped_timer_ = EventLoop::Source();
  EmitSkipped(link_->bus(), std::exchange(skipped_, 0));
  link_->Arm();
}

void Bus::OnEvent(const v1::Event& event) {
  switch (event.type()) {
    case v1::Event::TYPE_RELOADED:
      EmitReloaded(link_->bus());
      break;
    case v1::Event::TYPE_GRANT_BEGAN:
      if (MaySignal()) EmitGrantBegan(link_->bus(), event.grant().grant());
      break;
    case v1::Event::TYPE_GRANT_ENDED:
      if (MaySignal()) {
        EmitGrantEnded(link_->bus(), event.grant().grant(), event.reason());
      }
      break;
    default:
      return;
  }
  link_->Arm();
}

}  // namespace bpfgrant::broker
