// A loop in the process: its native twin, called as the entry in the kernel
// (bpf-programs/loop_entry) calls the step, with the same status page, the same
// reasons to stop, and one io_uring_enter(2) a step, which submits and waits.

#include <liburing.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "client/loop_place.h"
#include "client/loop_waker.h"
#include "proto/wire/ring.h"

namespace bpfgrant {
namespace {

// The step did not ask for a wait, and so for no submission either.
constexpr unsigned kNotAsked = ~0U;

// Best first. What a kernel does not know it refuses with EINVAL: the first
// came with Linux 6.1, the second with 5.19.
constexpr uint32_t kSetupFlags[] = {
    kSetupCqSize | kSetupSubmitAll | kSetupSingleIssuer | kSetupDeferTaskrun,
    kSetupCqSize | kSetupSubmitAll | IORING_SETUP_COOP_TASKRUN,
    kSetupCqSize,
};

absl::Status Failed(const char* what, int error) {
  return absl::InternalError(absl::StrCat(what, ": ", std::strerror(error)));
}

// The ring's fd registered with the thread, which saves each enter a look-up
// (io_uring_register_ring_fd(3), Linux 5.18). For one run at most: another
// thread may destroy the loop.
class RegisteredRing {
 public:
  explicit RegisteredRing(io_uring* ring) : ring_(ring) {}
  RegisteredRing(const RegisteredRing&) = delete;
  RegisteredRing& operator=(const RegisteredRing&) = delete;
  ~RegisteredRing() {
    if (registered_) io_uring_unregister_ring_fd(ring_);
  }
  void Register() { registered_ = io_uring_register_ring_fd(ring_) == 1; }

 private:
  io_uring* ring_;
  bool registered_ = false;
};
// Steps of a run that pay for both calls.
constexpr uint64_t kStepsToRegister = 16;

class ProcessPlace final : public LoopPlace {
 public:
  ProcessPlace(const Loop::Options& options, uint32_t step_budget,
               LoopMemory memory, UniqueFd event)
      : LoopPlace(std::move(memory), std::move(event)),
        native_(*options.native),
        step_budget_(step_budget),
        state_(native_.state_bytes / sizeof(State) + 1) {
    loop_.ring.ring_fd = -1;
    loop_.memory = this->memory().data();
    loop_.memory_bytes = this->memory().size();
    loop_.state = state_.data();
  }
  ~ProcessPlace() override {
    waker_.reset();
    if (loop_.ring.ring_fd >= 0) io_uring_queue_exit(&loop_.ring);
  }

  absl::Status Open(const Loop::Options& options,
                    const v1::LoopDescription& description);

  Loop::Place place() const override { return Loop::Place::kProcess; }
  absl::StatusOr<Loop::Stop> Run(const Loop::RunOptions& options) override;
  absl::Status RingDoorbell() override {
    // Posted by the kernel one by one, as many as the sleeper waits for.
    return waker_->Post(
        std::clamp(waiting_for_.load(), 1U, *loop_.ring.cq.kring_entries));
  }
  const io_uring_cqe* Head() override {
    return Ready() == 0
               ? nullptr
               : &loop_.ring.cq.cqes[CqHead() & *loop_.ring.cq.kring_mask];
  }
  void Advance() override { io_uring_cq_advance(&loop_.ring, 1); }
  bpfgrant_loop_status& status() override { return status_; }
  int ring_fd() const override { return loop_.ring.ring_fd; }
  uint32_t setup_flags() const override { return loop_.ring.flags; }
  bpfgrant_loop* native() override { return &loop_; }
  const LoopEvents* events() override { return events_.get(); }

 private:
  struct alignas(64) State {
    std::byte bytes[64];
  };
  using MaybeStop = std::optional<Loop::Stop>;

  uint32_t CqHead() const { return *loop_.ring.cq.khead; }
  uint32_t CqTail() const {
    return io_uring_smp_load_acquire(loop_.ring.cq.ktail);
  }
  uint32_t Ready() const { return CqTail() - CqHead(); }
  // Completions that the absolute index `until` is still away.
  int32_t Missing(uint32_t until) const {
    return static_cast<int32_t>(until - CqTail());
  }

  Loop::Stop Stopped(uint32_t why, int32_t detail);
  MaybeStop Wanted(const Loop::RunOptions& options);
  absl::Status SignalEventFd(bool on);
  absl::StatusOr<MaybeStop> Step(const Loop::RunOptions& options);
  absl::StatusOr<MaybeStop> SubmitAndWait(const Loop::RunOptions& options);
  absl::StatusOr<MaybeStop> EarlyEnd(const Loop::RunOptions& options);
  // -errno, or how many were taken.
  int Enter(unsigned submit, unsigned wait, const Loop::RunOptions& options);
  unsigned FlushPrepared();
  void DropPrepared();

  const bpfgrant_native_loop& native_;
  const uint32_t step_budget_;
  bpfgrant_loop loop_{};
  bpfgrant_loop_status status_{};
  std::vector<State> state_;
  std::unique_ptr<LoopWaker> waker_;
  std::unique_ptr<LoopEvents> events_;
  std::atomic<unsigned> waiting_for_{0};
  bool signals_ = false;  // the eventfd is registered
  // As in the entry.
  uint32_t in_a_row_ = 0;
  bool polling_ = false;
  uint32_t wait_until_ = 0;  // absolute index
};

absl::Status ProcessPlace::Open(const Loop::Options& options,
                                const v1::LoopDescription& description) {
  int error = -EINVAL;
  for (const uint32_t flags : kSetupFlags) {
    io_uring_params params{};
    params.flags = flags;
    params.cq_entries = description.cq_entries();
    error = io_uring_queue_init_params(description.sq_entries(), &loop_.ring,
                                       &params);
    if (error != -EINVAL) break;
  }
  if (error < 0) {
    loop_.ring.ring_fd = -1;
    return Failed("io_uring_setup", -error);
  }
  io_uring* ring = &loop_.ring;
  if (!options.buffers.empty()) {
    error = io_uring_register_buffers(ring, options.buffers.data(),
                                      options.buffers.size());
    if (error < 0) return Failed("registering buffers", -error);
  }
  if (!options.files.empty()) {
    error = io_uring_register_files(ring, options.files.data(),
                                    options.files.size());
    if (error < 0) return Failed("registering files", -error);
  }
  auto waker = LoopWaker::Make(ring_fd());
  if (!waker.ok()) return waker.status();
  waker_ = *std::move(waker);
  if (native_.events_bytes == nullptr || *native_.events_bytes == 0) {
    return absl::OkStatus();
  }
  auto events = LoopEvents::Make(*native_.events_bytes);
  if (!events.ok()) return events.status();
  events_ = *std::move(events);
  loop_.events = events_->writer();
  return absl::OkStatus();
}

absl::StatusOr<Loop::Stop> ProcessPlace::Run(const Loop::RunOptions& options) {
  status_.control = options.wait ? 0 : BPFGRANT_NO_WAIT;
  if (absl::Status status = SignalEventFd(!options.wait); !status.ok()) {
    return status;
  }
  RegisteredRing registered(&loop_.ring);
  for (uint64_t step = 1;; ++step) {
    if (step == kStepsToRegister) registered.Register();
    absl::StatusOr<MaybeStop> stop = Step(options);
    if (!stop.ok()) return stop.status();
    if (!stop->has_value()) continue;
    const Loop::Stop& why = **stop;
    if (why.why == BPFGRANT_STOP_BUDGET && options.through_budget) continue;
    // Left over from a run without waiting that a signal ended.
    if (why.why == BPFGRANT_STOP_IDLE && options.wait) continue;
    return why;
  }
}

// Who waits in the run does not poll, and each completion would pay for the
// signal; even for one that is turned off, so it is registered when it is first
// wanted.
absl::Status ProcessPlace::SignalEventFd(bool on) {
  if (on && !signals_) {
    const int error = io_uring_register_eventfd(&loop_.ring, event_fd());
    if (error < 0) return Failed("registering an eventfd", -error);
    signals_ = true;
  }
  if (signals_) io_uring_cq_eventfd_toggle(&loop_.ring, on);
  return absl::OkStatus();
}

Loop::Stop ProcessPlace::Stopped(uint32_t why, int32_t detail) {
  in_a_row_ = 0;
  polling_ = false;
  status_.stop = why;
  status_.detail = detail;
  return {Loop::Stop::Cause::kLoop, why, detail};
}

// Whether somebody wants the loop to come back.
ProcessPlace::MaybeStop ProcessPlace::Wanted(const Loop::RunOptions& options) {
  std::optional<int32_t> detail = wakes().Take();
  while (!detail.has_value()) {
    const io_uring_cqe* cqe = Head();
    if (cqe == nullptr || cqe->user_data != BPFGRANT_WAKE) break;
    if (cqe->res != kDoorbell) detail = cqe->res;
    Advance();
  }
  if (detail.has_value()) return Stopped(BPFGRANT_STOP_WOKEN, *detail);
  if (!Passed(options)) return std::nullopt;
  Stopped(BPFGRANT_STOP_WOKEN, 0);
  return DeadlinePassed();
}

absl::StatusOr<ProcessPlace::MaybeStop> ProcessPlace::Step(
    const Loop::RunOptions& options) {
  if (in_a_row_ >= step_budget_) return Stopped(BPFGRANT_STOP_BUDGET, 0);
  if (in_a_row_++ == 0) {
    status_.enters += 1;
    status_.stop = BPFGRANT_STOP_NONE;
  }
  if (const MaybeStop stop = Wanted(options)) return stop;
  if (polling_) {
    polling_ = false;
    if (Missing(wait_until_) > 0) return Stopped(BPFGRANT_STOP_IDLE, 0);
  }
  DropPrepared();
  loop_.wait_for = kNotAsked;
  const uint32_t cq_head = CqHead();
  const uint32_t sq_head = *loop_.ring.sq.khead;
  const int answer = native_.step(&loop_);
  status_.steps += 1;
  status_.completions += CqHead() - cq_head;
  absl::StatusOr<MaybeStop> stop = std::nullopt;
  if (answer == BPFGRANT_STOP_NONE) {
    stop = SubmitAndWait(options);
  } else if (answer > 0) {
    stop = Stopped(answer, 0);
  } else {
    stop = Stopped(BPFGRANT_STOP_ERROR, answer);
  }
  status_.requests += *loop_.ring.sq.khead - sq_head;
  return stop;
}

absl::StatusOr<ProcessPlace::MaybeStop> ProcessPlace::SubmitAndWait(
    const Loop::RunOptions& options) {
  unsigned submit = 0;
  if (loop_.wait_for != kNotAsked) {
    wait_until_ = CqHead() + loop_.wait_for;
    submit = FlushPrepared();
  }
  int32_t missing = std::max(Missing(wait_until_), 0);
  if (missing > 0 && (status_.control & BPFGRANT_NO_WAIT) != 0) {
    // Completions may wait to be posted: it looks once more.
    polling_ = true;
    missing = 0;
  } else if (missing == 0 && submit == 0 && loop_.wait_for != kNotAsked &&
             loop_.wait_for > 0) {
    return std::nullopt;  // it is all there
  }
  // Who wakes sees how many completions that takes, or is seen here.
  const unsigned wait = missing > 0 ? wait_until_ - CqHead() : 0;
  waiting_for_.store(wait);
  const bool wakes_wait = wakes().any();
  const int taken = Enter(submit, wakes_wait ? 0 : wait, options);
  waiting_for_.store(0, std::memory_order_release);
  if (submit > 0 && taken != static_cast<int>(submit)) {
    DropPrepared();
    return Stopped(BPFGRANT_STOP_SUBMIT, taken);
  }
  if (taken == -EINTR) {
    return Loop::Stop{Loop::Stop::Cause::kInterrupted, BPFGRANT_STOP_NONE, 0};
  }
  if (taken < 0 && taken != -ETIME) return Failed("io_uring_enter", -taken);
  if (wait == 0 || wakes_wait || Missing(wait_until_) <= 0) return std::nullopt;
  return EarlyEnd(options);
}

// The kernel does not tell that a signal or the deadline ended the wait, if it
// has submitted something or any completion is there.
absl::StatusOr<ProcessPlace::MaybeStop> ProcessPlace::EarlyEnd(
    const Loop::RunOptions& options) {
  if (Passed(options) || wakes().any()) return std::nullopt;
  // A request that timed out ends it, too.
  for (uint32_t at = CqHead(); at != CqTail(); ++at) {
    if (loop_.ring.cq.cqes[at & *loop_.ring.cq.kring_mask].res == -ETIME) {
      return std::nullopt;
    }
  }
  return Loop::Stop{Loop::Stop::Cause::kInterrupted, BPFGRANT_STOP_NONE, 0};
}

int ProcessPlace::Enter(unsigned submit, unsigned wait,
                        const Loop::RunOptions& options) {
  const io_uring& ring = loop_.ring;
  unsigned flags = IORING_ENTER_GETEVENTS;
  if (ring.enter_ring_fd != ring.ring_fd) flags |= IORING_ENTER_REGISTERED_RING;
  __kernel_timespec limit{};
  io_uring_getevents_arg argument{};
  if (wait > 0 && options.deadline.has_value()) {
    const auto left =
        std::max(std::chrono::nanoseconds(*options.deadline - Clock::now()),
                 std::chrono::nanoseconds(0));
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(left);
    limit = {seconds.count(), (left - seconds).count()};
    argument.sigmask_sz = _NSIG / 8;
    argument.ts = reinterpret_cast<uintptr_t>(&limit);
    flags |= IORING_ENTER_EXT_ARG;
  }
  enters_ += 1;
  const bool extended = (flags & IORING_ENTER_EXT_ARG) != 0;
  const long taken =
      syscall(SYS_io_uring_enter, ring.enter_ring_fd, submit, wait, flags,
              extended ? &argument : nullptr, extended ? sizeof(argument) : 0);
  return taken < 0 ? -errno : static_cast<int>(taken);
}

// As liburing does on submission, of any version.
unsigned ProcessPlace::FlushPrepared() {
  io_uring_sq& sq = loop_.ring.sq;
  const unsigned mask = *sq.kring_mask;
  unsigned tail = *sq.ktail;
  for (; sq.sqe_head != sq.sqe_tail; ++sq.sqe_head, ++tail) {
    if (sq.array != nullptr) sq.array[tail & mask] = sq.sqe_head & mask;
  }
  io_uring_smp_store_release(sq.ktail, tail);
  return tail - *sq.khead;
}

// What the step prepared and did not submit, or the kernel did not take.
void ProcessPlace::DropPrepared() {
  io_uring_sq& sq = loop_.ring.sq;
  const unsigned head = *sq.khead;
  io_uring_smp_store_release(sq.ktail, head);
  sq.sqe_head = head;
  sq.sqe_tail = head;
}

}  // namespace

absl::StatusOr<std::unique_ptr<LoopPlace>> MakeProcessPlace(
    const Loop::Options& options, const v1::LoopDescription& description) {
  if (options.native == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.program, ": there is no native twin to run"));
  }
  absl::StatusOr<LoopMemory> memory =
      LoopMemory::Make(options.memory, description.memory_bytes());
  if (!memory.ok()) return memory.status();
  absl::StatusOr<UniqueFd> event = MakeEventFd();
  if (!event.ok()) return event.status();
  auto place =
      std::make_unique<ProcessPlace>(options, description.step_budget(),
                                     *std::move(memory), *std::move(event));
  if (absl::Status status = place->Open(options, description); !status.ok()) {
    return status;
  }
  return place;
}

}  // namespace bpfgrant
