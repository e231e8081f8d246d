#include "daemon/broker/bus_link.h"

#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace bpfgrant::broker {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr char kDefaultAddress[] = "unix:path=/run/dbus/system_bus_socket";
// Messages that the bus has not taken from us. One that takes none any more is
// as good as gone, and what waits for it is memory of ours.
constexpr uint64_t kMaxUnsent = 4096;

std::string Text(int error) { return std::strerror(std::abs(error)); }

}  // namespace

int BusRequest::OnReply(sd_bus_message* reply, void* self, sd_bus_error*) {
  // Whoever is told may destroy the request.
  Done done = std::move(static_cast<BusRequest*>(self)->done_);
  if (done) done(reply);
  return 1;
}

absl::StatusOr<std::unique_ptr<BusLink>> BusLink::Open(
    EventLoop& loop, std::function<void(const std::string& why)> on_lost) {
  std::unique_ptr<BusLink> link(new BusLink(loop, std::move(on_lost)));
  sd_bus* bus = nullptr;
  int error = sd_bus_new(&bus);
  if (error < 0) return absl::UnavailableError(Text(error));
  link->bus_.reset(bus);
  const char* address = secure_getenv("DBUS_SYSTEM_BUS_ADDRESS");
  error =
      sd_bus_set_address(bus, address != nullptr ? address : kDefaultAddress);
  if (error >= 0) error = sd_bus_set_bus_client(bus, 1);
  // Nobody has reason to send us fds; without this they would pile up here.
  if (error >= 0) error = sd_bus_negotiate_fds(bus, 0);
  if (error >= 0) error = sd_bus_start(bus);
  if (error < 0) {
    return absl::UnavailableError(absl::StrCat("no system bus: ", Text(error)));
  }
  link->Arm();
  return link;
}

BusLink::~BusLink() = default;

BusMessage BusLink::NewCall(const char* destination, const char* path,
                            const char* interface, const char* member) {
  sd_bus_message* message = nullptr;
  sd_bus_message_new_method_call(bus_.get(), &message, destination, path,
                                 interface, member);
  return BusMessage(message);
}

void BusLink::Send(BusMessage message) {
  if (message == nullptr) return;
  if (sd_bus_send(bus_.get(), message.get(), nullptr) < 0) {
    Fail("it does not take what is sent");
  }
  Arm();
}

std::unique_ptr<BusRequest> BusLink::Ask(BusMessage call, milliseconds deadline,
                                         BusRequest::Done done) {
  if (call == nullptr) return nullptr;
  std::unique_ptr<BusRequest> request(new BusRequest(std::move(done)));
  sd_bus_slot* slot = nullptr;
  const int error = sd_bus_call_async(
      bus_.get(), &slot, call.get(), BusRequest::OnReply, request.get(),
      static_cast<uint64_t>(microseconds(deadline).count()));
  if (error < 0) return nullptr;
  request->slot_.reset(slot);
  Arm();
  return request;
}

std::unique_ptr<BusRequest> BusLink::WatchEnd(const std::string& name,
                                              BusRequest::Done done) {
  std::unique_ptr<BusRequest> request(new BusRequest(std::move(done)));
  const std::string match = absl::StrCat(
      "type='signal',sender='org.freedesktop.DBus',"
      "path='/org/freedesktop/DBus',interface='org.freedesktop.DBus',"
      "member='NameOwnerChanged',arg0='",
      name, "',arg2=''");
  sd_bus_slot* slot = nullptr;
  const int error = sd_bus_add_match_async(
      bus_.get(), &slot, match.c_str(), BusRequest::OnReply,
      // sd-bus closes the connection on an error if nobody looks.
      [](sd_bus_message*, void*, sd_bus_error*) { return 0; }, request.get());
  if (error < 0) return nullptr;
  request->slot_.reset(slot);
  Arm();
  return request;
}

void BusLink::Fail(const std::string& why) {
  if (failed_.active()) return;
  io_ = EventLoop::Source();
  timer_ = EventLoop::Source();
  // Not from here: whoever is told destroys this, which may be in use.
  failed_ = loop_.Timer(milliseconds(0), [this, why] {
    const auto on_lost = std::move(on_lost_);
    on_lost(why);
  });
}

void BusLink::Turn() {
  // One message, and then others have their turn.
  in_turn_ = true;
  const int error = sd_bus_process(bus_.get(), nullptr);
  in_turn_ = false;
  if (error < 0) {
    Fail(Text(error));
  } else if (sd_bus_is_open(bus_.get()) <= 0) {
    Fail("it closed the connection");
  }
  Arm();
}

void BusLink::Arm() {
  if (in_turn_ || failed_.active()) return;
  uint64_t unsent = 0;
  sd_bus_get_n_queued_write(bus_.get(), &unsent);
  if (unsent > kMaxUnsent) return Fail("it does not take what is sent");
  const int fd = sd_bus_get_fd(bus_.get());
  const int events = sd_bus_get_events(bus_.get());
  uint64_t until = UINT64_MAX;
  if (fd < 0 || events < 0 || sd_bus_get_timeout(bus_.get(), &until) < 0) {
    return Fail("it closed the connection");
  }
  // poll(2)'s events are epoll(7)'s.
  if (io_.active() && watched_fd_ == fd) {
    io_.SetEvents(static_cast<uint32_t>(events));
  } else {
    io_ = loop_.Io(fd, static_cast<uint32_t>(events),
                   [this](uint32_t) { Turn(); });
    watched_fd_ = fd;
  }
  if (timer_.active() && timer_until_ == until) return;
  timer_ = EventLoop::Source();
  timer_until_ = until;
  if (until == UINT64_MAX) return;
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  const auto after = std::chrono::ceil<milliseconds>(
      microseconds(static_cast<int64_t>(until)) - now);
  timer_ = loop_.Timer(std::max(after, milliseconds(0)), [this] {
    timer_ = EventLoop::Source();
    Turn();
  });
}

}  // namespace bpfgrant::broker
