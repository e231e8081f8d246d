// Where a loop runs: what Loop asks of the kernel's place (loop.cc) and of the
// process's (loop_native.cc), and what both have.

#ifndef CLIENT_LOOP_PLACE_H_
#define CLIENT_LOOP_PLACE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "bpfgrant/v1/messages.pb.h"
#include "client/bpfgrant/loop.h"
#include "client/loop_events.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant {

// The res of a completion that only says "look": what for stands in
// PendingWakes, or is the deadline. So what an earlier run left in the ring
// means nothing to a later one. (Another res is somebody's own MSG_RING.)
inline constexpr int32_t kDoorbell = std::numeric_limits<int32_t>::min();

// Wakes that no run has reported yet. Any thread.
class PendingWakes {
 public:
  void Push(int32_t detail);
  std::optional<int32_t> Take();
  // In one order, over all threads, with what surrounds it.
  bool any() const { return count_.load() > 0; }

 private:
  std::mutex mutex_;
  std::deque<int32_t> details_;
  std::atomic<size_t> count_{0};
};

// What the loop sees: the library's own, zero at first, or the caller's.
class LoopMemory {
 public:
  // `wanted` bytes; or the span, if it has any: kInvalidArgument if that is too
  // short or not page-aligned.
  static absl::StatusOr<LoopMemory> Make(absl::Span<std::byte> callers,
                                         size_t wanted);
  LoopMemory(LoopMemory&& other) noexcept;
  LoopMemory& operator=(LoopMemory&&) = delete;
  ~LoopMemory();
  absl::Span<std::byte> span() const { return span_; }

 private:
  LoopMemory(absl::Span<std::byte> span, bool own) : span_(span), own_(own) {}
  absl::Span<std::byte> span_;
  bool own_;
};

// An eventfd(2) that does not block.
absl::StatusOr<UniqueFd> MakeEventFd();

class LoopPlace {
 public:
  using Clock = std::chrono::steady_clock;

  LoopPlace(LoopMemory memory, UniqueFd event)
      : memory_(std::move(memory)), event_(std::move(event)) {}
  LoopPlace(const LoopPlace&) = delete;
  LoopPlace& operator=(const LoopPlace&) = delete;
  virtual ~LoopPlace() = default;

  virtual Loop::Place place() const = 0;
  virtual absl::StatusOr<Loop::Stop> Run(const Loop::RunOptions& options) = 0;
  // Brings a run under way back, so that it looks at wakes(), and makes
  // event_fd readable, unless that run waits.
  virtual absl::Status RingDoorbell() = 0;
  // The completion at the head of the queue, whatever it is.
  virtual const io_uring_cqe* Head() = 0;
  virtual void Advance() = 0;
  virtual bpfgrant_loop_status& status() = 0;
  virtual int ring_fd() const = 0;
  virtual uint32_t setup_flags() const = 0;
  virtual Grant* grant() { return nullptr; }
  virtual const LoopEvents* events() { return nullptr; }
  virtual bpfgrant_loop* native() { return nullptr; }

  absl::Span<std::byte> memory() const { return memory_.span(); }
  int event_fd() const { return event_.get(); }
  PendingWakes& wakes() { return wakes_; }
  uint64_t enters() const { return enters_; }
  const std::string& reason() const { return reason_; }
  void SetReason(std::string reason) { reason_ = std::move(reason); }
  bool OnOwnThread() const { return thread_ == std::this_thread::get_id(); }

 protected:
  // Stops that both places report in the same way.
  Loop::Stop Woken(int32_t detail);
  Loop::Stop DeadlinePassed();

  static bool Passed(const Loop::RunOptions& options) {
    return options.deadline.has_value() && Clock::now() >= *options.deadline;
  }

  uint64_t enters_ = 0;

 private:
  LoopMemory memory_;
  UniqueFd event_;
  PendingWakes wakes_;
  std::string reason_;
  const std::thread::id thread_ = std::this_thread::get_id();
};

// The two places. `description` is the daemon's; for the process it may have
// been made of the options.
absl::StatusOr<std::unique_ptr<LoopPlace>> MakeKernelPlace(
    Connection& connection, const Loop::Options& options,
    const v1::LoopDescription& description);
absl::StatusOr<std::unique_ptr<LoopPlace>> MakeProcessPlace(
    const Loop::Options& options, const v1::LoopDescription& description);

}  // namespace bpfgrant

#endif  // CLIENT_LOOP_PLACE_H_
