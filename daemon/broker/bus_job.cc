#include "daemon/broker/bus_job.h"

#include <unistd.h>

#include <utility>

#include "daemon/broker/bus_limits.h"

namespace bpfgrant::broker {
namespace {

constexpr char kSystemd[] = "org.freedesktop.systemd1";

}  // namespace

BusJob::BusJob(EventLoop& loop, BusLink& link, Done done)
    : link_(link), done_(std::move(done)) {
  deadline_ = loop.Timer(kJobDeadline, [this] { Finish(""); });
  BusMessage call =
      link_.NewCall(kSystemd, "/org/freedesktop/systemd1",
                    "org.freedesktop.systemd1.Manager", "GetUnitByPID");
  if (call != nullptr) {
    sd_bus_message_append(call.get(), "u", static_cast<uint32_t>(getpid()));
  }
  Ask(std::move(call), &BusJob::OnUnit);
}

BusJob::~BusJob() { Finish(""); }

void BusJob::Ask(BusMessage call, void (BusJob::*next)(sd_bus_message*)) {
  request_ = link_.Ask(std::move(call), kJobDeadline,
                       [this, next](sd_bus_message* reply) {
                         if (sd_bus_message_is_method_error(reply, nullptr)) {
                           Finish("");
                         } else {
                           (this->*next)(reply);
                         }
                       });
  // The deadline is there for whoever asks: it may not have returned yet.
}

BusMessage BusJob::PropertyOf(const char* path, const char* interface,
                              const char* name) {
  BusMessage call =
      link_.NewCall(kSystemd, path, "org.freedesktop.DBus.Properties", "Get");
  if (call != nullptr) {
    sd_bus_message_append(call.get(), "ss", interface, name);
  }
  return call;
}

void BusJob::OnUnit(sd_bus_message* reply) {
  const char* unit = nullptr;
  if (sd_bus_message_read(reply, "o", &unit) <= 0) return Finish("");
  Ask(PropertyOf(unit, "org.freedesktop.systemd1.Unit", "Job"), &BusJob::OnJob);
}

void BusJob::OnJob(sd_bus_message* reply) {
  uint32_t id = 0;
  const char* job = nullptr;
  if (sd_bus_message_read(reply, "v", "(uo)", &id, &job) <= 0 || id == 0) {
    return Finish("");
  }
  Ask(PropertyOf(job, "org.freedesktop.systemd1.Job", "JobType"),
      &BusJob::OnType);
}

void BusJob::OnType(sd_bus_message* reply) {
  const char* type = nullptr;
  if (sd_bus_message_read(reply, "v", "s", &type) <= 0) return Finish("");
  Finish(type);
}

void BusJob::Finish(std::string type) {
  deadline_ = EventLoop::Source();
  if (done_ == nullptr) return;
  // It may destroy this.
  Done done = std::exchange(done_, nullptr);
  done(std::move(type));
}

}  // namespace bpfgrant::broker
