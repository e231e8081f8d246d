#include "daemon/broker/event_loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <cstdlib>
#include <cstring>
#include <mutex>
#include <utility>

#include "spdlog/spdlog.h"

namespace bpfgrant::broker {

// How late a timer may be, so that several can share one waking up; by default
// it is 250 ms. Microseconds.
constexpr uint64_t kTimerAccuracy = 1000;

struct EventLoop::Source::State {
  sd_event_source* source = nullptr;
  std::function<void(uint32_t)> on_io;
  std::function<void()> on_event;
  bool running = false;
  bool deleted = false;

  // A callback may destroy its own source: then the callable that is running
  // has to live until it returns.
  template <typename Function, typename... Arguments>
  int Call(Function& function, Arguments... arguments) {
    running = true;
    function(arguments...);
    running = false;
    if (deleted) delete this;
    return 0;
  }

  ~State() { sd_event_source_disable_unref(source); }
};

void EventLoop::Source::Delete::operator()(State* state) const {
  if (state->running) {
    state->deleted = true;
    sd_event_source_set_enabled(state->source, SD_EVENT_OFF);
  } else {
    delete state;
  }
}

void EventLoop::Source::SetEvents(uint32_t events) {
  if (state_ == nullptr) return;
  if (events == 0) {
    sd_event_source_set_enabled(state_->source, SD_EVENT_OFF);
    return;
  }
  sd_event_source_set_io_events(state_->source, events);
  sd_event_source_set_enabled(state_->source, SD_EVENT_ON);
}

EventLoop::EventLoop() {
  int error = sd_event_new(&event_);
  wakeup_ = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (error < 0 || !wakeup_.valid()) {
    spdlog::critical("no event loop: {}", std::strerror(errno));
    std::abort();
  }
  wakeup_source_ = Io(wakeup_.get(), EPOLLIN, [this](uint32_t) {
    uint64_t count;
    // Only resets the counter; the work itself is in posted_.
    [[maybe_unused]] const ssize_t got =
        read(wakeup_.get(), &count, sizeof(count));
    RunPosted();
  });
}

EventLoop::~EventLoop() {
  wakeup_source_ = Source();
  sd_event_unref(event_);
}

EventLoop::Source EventLoop::Make(
    std::unique_ptr<Source::State, Source::Delete> state, int error) {
  Source source;
  if (error < 0) {
    // Out of memory or of epoll watches: there is no way to go on watching.
    spdlog::error("cannot watch: {}", std::strerror(-error));
    return source;
  }
  source.state_ = std::move(state);
  return source;
}

EventLoop::Source EventLoop::Io(int fd, uint32_t events,
                                std::function<void(uint32_t)> callback) {
  std::unique_ptr<Source::State, Source::Delete> state(new Source::State);
  state->on_io = std::move(callback);
  const int error = sd_event_add_io(
      event_, &state->source, fd, events,
      [](sd_event_source*, int, uint32_t seen, void* data) {
        auto* self = static_cast<Source::State*>(data);
        return self->Call(self->on_io, seen);
      },
      state.get());
  return Make(std::move(state), error);
}

EventLoop::Source EventLoop::Timer(std::chrono::milliseconds after,
                                   std::function<void()> callback) {
  std::unique_ptr<Source::State, Source::Delete> state(new Source::State);
  state->on_event = std::move(callback);
  // From now, not from when this turn of the loop began
  // (sd_event_add_time_relative): the turn may have been a long one.
  const auto until = std::chrono::ceil<std::chrono::microseconds>(
      std::chrono::steady_clock::now().time_since_epoch() + after);
  const int error = sd_event_add_time(
      event_, &state->source, CLOCK_MONOTONIC,
      static_cast<uint64_t>(until.count()), kTimerAccuracy,
      [](sd_event_source*, uint64_t, void* data) {
        auto* self = static_cast<Source::State*>(data);
        return self->Call(self->on_event);
      },
      state.get());
  return Make(std::move(state), error);
}

EventLoop::Source EventLoop::Signal(int number,
                                    std::function<void()> callback) {
  std::unique_ptr<Source::State, Source::Delete> state(new Source::State);
  state->on_event = std::move(callback);
  const int error = sd_event_add_signal(
      event_, &state->source, number,
      [](sd_event_source*, const signalfd_siginfo*, void* data) {
        auto* self = static_cast<Source::State*>(data);
        return self->Call(self->on_event);
      },
      state.get());
  return Make(std::move(state), error);
}

EventLoop::Source EventLoop::WhenIdle(std::function<void()> callback) {
  std::unique_ptr<Source::State, Source::Delete> state(new Source::State);
  state->on_event = std::move(callback);
  const int error = sd_event_add_defer(
      event_, &state->source,
      [](sd_event_source*, void* data) {
        auto* self = static_cast<Source::State*>(data);
        return self->Call(self->on_event);
      },
      state.get());
  if (error >= 0) {
    sd_event_source_set_priority(state->source, SD_EVENT_PRIORITY_IDLE);
  }
  return Make(std::move(state), error);
}

void EventLoop::Post(absl::AnyInvocable<void()> work) {
  {
    std::lock_guard lock(mutex_);
    posted_.push_back(std::move(work));
    if (posted_.size() > 1) return;  // The wake-up is under way.
  }
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written =
      write(wakeup_.get(), &one, sizeof(one));
}

void EventLoop::RunPosted() {
  std::vector<absl::AnyInvocable<void()>> work;
  {
    std::lock_guard lock(mutex_);
    work.swap(posted_);
  }
  for (auto& item : work) item();
}

int EventLoop::Run() {
  const int code = sd_event_loop(event_);
  if (code < 0) spdlog::error("event loop: {}", std::strerror(-code));
  return code < 0 ? 1 : code;
}

void EventLoop::Exit(int code) { sd_event_exit(event_, code); }

}  // namespace bpfgrant::broker
