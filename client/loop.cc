#include "client/bpfgrant/loop.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/loop_place.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant {
namespace {

// What there is to know of a ring when the daemon does not say.
v1::LoopDescription FromOptions(const Loop::Options& options) {
  v1::LoopDescription description;
  description.set_sq_entries(options.sq_entries);
  description.set_cq_entries(options.cq_entries);
  description.set_memory_bytes(static_cast<uint32_t>(options.memory_bytes));
  description.set_step_budget(options.step_budget);
  return description;
}

// The loop in the kernel. `description` becomes the daemon's as soon as that
// has said it.
absl::StatusOr<std::unique_ptr<LoopPlace>> InKernel(
    Connection* connection, const Loop::Options& options,
    v1::LoopDescription& description) {
  if (connection == nullptr) {
    return absl::InvalidArgumentError(
        "a loop in the kernel needs a connection to bpfgrantd");
  }
  absl::StatusOr<v1::DescribeReply> described =
      connection->Describe(options.program);
  if (!described.ok()) return described.status();
  const v1::LoopDescription& loop = described->detail().loop();
  if (loop.sq_entries() > 0) description = loop;
  if (!described->summary().available()) {
    return Refuse(described->summary().reason() == v1::REASON_UNSPECIFIED
                      ? v1::REASON_PROGRAM_UNAVAILABLE
                      : described->summary().reason(),
                  absl::StrCat(options.program,
                               " is not available: ", described->refusal()));
  }
  if (loop.sq_entries() == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.program, " is not an io_uring loop"));
  }
  return MakeKernelPlace(*connection, options, loop);
}

std::string Detail(const Loop::Stop& stop) {
  return absl::StrCat(" (detail ", stop.detail, ")");
}

std::string DescribeWhy(const Loop::Stop& stop) {
  switch (stop.why) {
    case BPFGRANT_STOP_NONE:
      return "the loop did not stop";
    case BPFGRANT_STOP_DONE:
      return "the loop is done";
    case BPFGRANT_STOP_PASSED:
      return "the loop left completions for the process";
    case BPFGRANT_STOP_ERROR:
      return absl::StrCat("the loop failed: ", std::strerror(-stop.detail));
    case BPFGRANT_STOP_IDLE:
      return "the loop has nothing to do now";
    case BPFGRANT_STOP_BUDGET:
      return "the loop has used up its steps in a row";
    case BPFGRANT_STOP_WOKEN:
      return absl::StrCat("the loop was woken", Detail(stop));
    case BPFGRANT_STOP_REVOKED:
      return "the loop was revoked";
    case BPFGRANT_STOP_TASK:
      return "this task made no io_uring of its own, which loops need";
    case BPFGRANT_STOP_GEOMETRY:
      return "the ring or its memory is smaller than the loop needs";
    case BPFGRANT_STOP_SUBMIT:
      return stop.detail < 0
                 ? absl::StrCat("a submission failed: ",
                                std::strerror(-stop.detail))
                 : absl::StrCat("a submission fell short", Detail(stop));
    default:
      return absl::StrCat("the loop stopped with ", stop.why, Detail(stop));
  }
}

}  // namespace

Loop::Loop(std::unique_ptr<LoopPlace> place) : place_(std::move(place)) {}
Loop::Loop(Loop&&) noexcept = default;
Loop& Loop::operator=(Loop&&) noexcept = default;
Loop::~Loop() = default;

absl::StatusOr<Loop> Loop::Create(Connection* connection, Options options) {
  v1::LoopDescription description = FromOptions(options);
  std::string reason = "it was asked for in the process";
  if (options.where != Where::kProcessOnly) {
    auto place = InKernel(connection, options, description);
    if (place.ok()) return Loop(*std::move(place));
    if (options.where == Where::kKernelOnly) return place.status();
    reason = std::string(place.status().message());
  }
  auto place = MakeProcessPlace(options, description);
  if (!place.ok()) {
    if (options.where == Where::kProcessOnly) return place.status();
    return absl::Status(
        place.status().code(),
        absl::StrCat("in the kernel: ", reason, "; in the process: ",
                     std::string(place.status().message())));
  }
  (*place)->SetReason(std::move(reason));
  return Loop(*std::move(place));
}

Loop::Place Loop::place() const { return place_->place(); }
const std::string& Loop::place_reason() const { return place_->reason(); }
absl::Span<std::byte> Loop::memory() { return place_->memory(); }

std::string Loop::Describe(const Stop& stop) {
  switch (stop.cause) {
    case Stop::Cause::kLoop:
      return DescribeWhy(stop);
    case Stop::Cause::kInterrupted:
      return "a signal";
    case Stop::Cause::kDeadline:
      return "the deadline passed";
    case Stop::Cause::kDetached:
      return stop.why == BPFGRANT_STOP_REVOKED ? DescribeWhy(stop)
                                               : "the loop was detached";
  }
  return "";
}

absl::StatusOr<Loop::Stop> Loop::Run(const RunOptions& options) {
  if (!place_->OnOwnThread()) {
    return absl::FailedPreconditionError(
        "a loop runs in the thread that made it");
  }
  return place_->Run(options);
}

absl::Status Loop::Wake(int32_t detail) {
  place_->wakes().Push(detail);
  return place_->RingDoorbell();
}

int Loop::event_fd() const { return place_->event_fd(); }

const io_uring_cqe* Loop::PeekCompletion() {
  // A wake is the next run's business.
  for (;;) {
    const io_uring_cqe* cqe = place_->Head();
    if (cqe == nullptr || cqe->user_data != BPFGRANT_WAKE) return cqe;
    if (cqe->res != kDoorbell) place_->wakes().Push(cqe->res);
    place_->Advance();
  }
}

void Loop::SeenCompletion() {
  if (PeekCompletion() != nullptr) place_->Advance();
}

const bpfgrant_loop_status& Loop::status() const { return place_->status(); }
uint64_t Loop::enters() const { return place_->enters(); }
absl::StatusOr<RingBuffer> Loop::Events() {
  if (place_->events() != nullptr) return place_->events()->Reader();
  if (grant() == nullptr) return absl::NotFoundError("the loop has no events");
  const absl::StatusOr<const Grant::Handle*> handle = grant()->Find("events");
  if (!handle.ok()) return handle.status();
  return RingBuffer::Map(**handle);
}
Grant* Loop::grant() { return place_->grant(); }
int Loop::ring_fd() const { return place_->ring_fd(); }
uint32_t Loop::setup_flags() const { return place_->setup_flags(); }
bpfgrant_loop* Loop::native() { return place_->native(); }

}  // namespace bpfgrant
