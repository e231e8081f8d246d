// The broker's event loop: sd-event with owned sources and callables.
//
// It must not know what the events mean. Everything but Post belongs to the
// thread that runs the loop.

#ifndef DAEMON_BROKER_EVENT_LOOP_H_
#define DAEMON_BROKER_EVENT_LOOP_H_

#include <systemd/sd-event.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::broker {

class EventLoop {
 public:
  // One watched thing. Destroying it stops the watching, also from within its
  // own callback.
  class Source {
   public:
    Source() = default;
    Source(Source&&) noexcept = default;
    Source& operator=(Source&&) noexcept = default;

    bool active() const { return state_ != nullptr; }
    // For an Io source: which EPOLL* events to wait for; 0 pauses it.
    void SetEvents(uint32_t events);

   private:
    friend class EventLoop;
    struct State;
    struct Delete {
      void operator()(State* state) const;
    };
    std::unique_ptr<State, Delete> state_;
  };

  EventLoop();
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Calls `callback` with the EPOLL* events seen on `fd`, which stays the
  // caller's and must outlive the source.
  [[nodiscard]] Source Io(int fd, uint32_t events,
                          std::function<void(uint32_t)> callback);
  // Calls `callback` once, `after` from now.
  [[nodiscard]] Source Timer(std::chrono::milliseconds after,
                             std::function<void()> callback);
  // Calls `callback` for a signal, which every thread must have blocked.
  [[nodiscard]] Source Signal(int number, std::function<void()> callback);
  // Calls `callback` once when there is nothing else to do.
  [[nodiscard]] Source WhenIdle(std::function<void()> callback);

  // From any thread: runs `work` on the loop's thread, soon, in order.
  void Post(absl::AnyInvocable<void()> work);
  // Runs what has been posted so far.
  void RunPosted();

  // Runs until Exit; returns its code.
  int Run();
  void Exit(int code);

 private:
  Source Make(std::unique_ptr<Source::State, Source::Delete> state, int error);

  sd_event* event_ = nullptr;
  UniqueFd wakeup_;
  Source wakeup_source_;
  // Not absl's: ThreadSanitizer would not see it in distributions' builds.
  std::mutex mutex_;
  std::vector<absl::AnyInvocable<void()>> posted_;  // guarded by mutex_
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_EVENT_LOOP_H_
