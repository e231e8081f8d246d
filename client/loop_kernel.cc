// A loop in the kernel: a ring, disabled at first, the daemon's grant for it,
// and io_uring_enter(2), which runs the loop until it stops.

#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "client/bpfgrant/mapped_array.h"
#include "client/loop_place.h"
#include "client/loop_ring.h"
#include "client/loop_waker.h"
#include "client/loop_workers.h"

namespace bpfgrant {
namespace {

class KernelPlace final : public LoopPlace {
 public:
  KernelPlace(LoopMemory memory, UniqueFd event, LoopRing ring)
      : LoopPlace(std::move(memory), std::move(event)),
        ring_(std::move(ring)) {}

  absl::Status Prepare(const Loop::Options& options);
  absl::Status Acquire(Connection& connection, const Loop::Options& options);

  Loop::Place place() const override { return Loop::Place::kKernel; }
  absl::StatusOr<Loop::Stop> Run(const Loop::RunOptions& options) override;
  absl::Status RingDoorbell() override {
    if (absl::Status status = waker_->Post(1); !status.ok()) return status;
    // Only then: it would interrupt whatever else the thread does.
    if (running_.load()) waker_->Kick();
    return absl::OkStatus();
  }
  const io_uring_cqe* Head() override { return ring_.Head(); }
  void Advance() override { ring_.Advance(); }
  bpfgrant_loop_status& status() override { return *status_; }
  int ring_fd() const override { return ring_.fd(); }
  uint32_t setup_flags() const override { return ring_.setup_flags(); }
  Grant* grant() override { return &*grant_; }

 private:
  absl::StatusOr<Loop::Stop> Enter(const Loop::RunOptions& options);
  // What the loop's stop means to this run; nothing: enter again.
  std::optional<Loop::Stop> Judge(const Loop::RunOptions& options);
  Loop::Stop Detached(uint32_t why);

  // What stands behind goes first.
  LoopRing ring_;
  std::unique_ptr<LoopWaker> waker_;
  std::optional<Grant> grant_;
  std::optional<MappedArray> page_;
  bpfgrant_loop_status* status_ = nullptr;
  std::atomic<bool> running_{false};
  std::optional<Loop::Stop> detached_;
};

absl::Status KernelPlace::Prepare(const Loop::Options& options) {
  absl::Status status = ring_.RegisterMemory(memory());
  if (status.ok()) status = ring_.RegisterBuffers(options.buffers);
  if (status.ok()) status = ring_.RegisterFiles(options.files);
  if (!status.ok()) return status;
  auto waker = LoopWaker::Make(ring_.fd());
  if (!waker.ok()) return waker.status();
  waker_ = *std::move(waker);
  return StartWorkers();
}

absl::Status KernelPlace::Acquire(Connection& connection,
                                  const Loop::Options& options) {
  absl::StatusOr<Grant> grant =
      connection.Acquire({.program = options.program,
                          .interface = options.interface,
                          .interface_hash = options.interface_hash,
                          .delivery = v1::DELIVERY_RING,
                          .ring = ring_.fd()});
  if (!grant.ok()) return grant.status();
  grant_.emplace(*std::move(grant));
  const auto handle = grant_->Find("status");
  if (!handle.ok()) return handle.status();
  absl::StatusOr<MappedArray> page = MappedArray::Map(**handle);
  if (!page.ok()) return page.status();
  page_.emplace(*std::move(page));
  status_ = page_->At<bpfgrant_loop_status>(0);
  if (status_ == nullptr) {
    return absl::InternalError("bpfgrantd's status page is too small");
  }
  return ring_.Enable();
}

absl::StatusOr<Loop::Stop> KernelPlace::Run(const Loop::RunOptions& options) {
  if (detached_.has_value()) return *detached_;
  // From here on Wake kicks; one that came before is seen.
  running_.store(true);
  const absl::Cleanup rest = [this] { running_.store(false); };
  if (const auto detail = wakes().Take()) return Woken(*detail);
  if (Passed(options)) return DeadlinePassed();
  if (absl::Status status = waker_->PrepareKick(); !status.ok()) return status;
  if (!options.deadline.has_value()) return Enter(options);
  if (absl::Status status = waker_->SetDeadline(*options.deadline);
      !status.ok()) {
    return status;
  }
  absl::StatusOr<Loop::Stop> stop = Enter(options);
  waker_->ClearDeadline();
  return stop;
}

absl::StatusOr<Loop::Stop> KernelPlace::Enter(const Loop::RunOptions& options) {
  status_->control = options.wait ? 0 : BPFGRANT_NO_WAIT;
  // Who waits here does not poll, and each completion would pay for the signal.
  if (absl::Status status = ring_.SignalEventFd(event_fd(), !options.wait);
      !status.ok()) {
    return status;
  }
  for (;;) {
    // A loop that ran says why it stopped.
    status_->stop = BPFGRANT_STOP_NONE;
    enters_ += 1;
    const int error = ring_.Enter();
    if (error == -EINTR) {
      return Loop::Stop{Loop::Stop::Cause::kInterrupted, BPFGRANT_STOP_NONE, 0};
    }
    if (error == -EFAULT) return Detached(BPFGRANT_STOP_NONE);
    if (error < 0) {
      return absl::InternalError(
          absl::StrCat("io_uring_enter: ", std::strerror(-error)));
    }
    if (const auto stop = Judge(options)) return *stop;
  }
}

std::optional<Loop::Stop> KernelPlace::Judge(const Loop::RunOptions& options) {
  const uint32_t why = status_->stop;
  const int32_t detail = status_->detail;
  const Loop::Stop stop{Loop::Stop::Cause::kLoop, why, detail};
  switch (why) {
    case BPFGRANT_STOP_NONE:
    case BPFGRANT_STOP_REVOKED:
      return Detached(why);
    case BPFGRANT_STOP_WOKEN:
      if (detail != kDoorbell) return stop;
      break;
    case BPFGRANT_STOP_BUDGET:
      if (!options.through_budget) return stop;
      break;
    case BPFGRANT_STOP_IDLE:
      // With `wait` it is left over from a run that a signal ended.
      if (!options.wait) return stop;
      break;
    default:
      return stop;
  }
  if (const auto wake = wakes().Take()) return Woken(*wake);
  if (Passed(options)) return DeadlinePassed();
  return std::nullopt;
}

Loop::Stop KernelPlace::Detached(uint32_t why) {
  detached_ = Loop::Stop{Loop::Stop::Cause::kDetached, why, 0};
  return *detached_;
}

}  // namespace

absl::StatusOr<std::unique_ptr<LoopPlace>> MakeKernelPlace(
    Connection& connection, const Loop::Options& options,
    const v1::LoopDescription& description) {
  absl::StatusOr<LoopMemory> memory =
      LoopMemory::Make(options.memory, description.memory_bytes());
  if (!memory.ok()) return memory.status();
  absl::StatusOr<UniqueFd> event = MakeEventFd();
  if (!event.ok()) return event.status();
  absl::StatusOr<LoopRing> ring =
      LoopRing::Make(description.setup_flags(), description.sq_entries(),
                     description.cq_entries());
  if (!ring.ok()) return ring.status();
  auto place = std::make_unique<KernelPlace>(
      *std::move(memory), *std::move(event), *std::move(ring));
  absl::Status status = place->Prepare(options);
  if (status.ok()) status = place->Acquire(connection, options);
  if (!status.ok()) return status;
  return place;
}

}  // namespace bpfgrant
