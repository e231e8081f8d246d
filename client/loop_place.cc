#include "client/loop_place.h"

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace bpfgrant {

void PendingWakes::Push(int32_t detail) {
  const std::lock_guard lock(mutex_);
  details_.push_back(detail);
  count_.store(details_.size());
}

std::optional<int32_t> PendingWakes::Take() {
  if (!any()) return std::nullopt;
  const std::lock_guard lock(mutex_);
  if (details_.empty()) return std::nullopt;
  const int32_t detail = details_.front();
  details_.pop_front();
  count_.store(details_.size());
  return detail;
}

absl::StatusOr<LoopMemory> LoopMemory::Make(absl::Span<std::byte> callers,
                                            size_t wanted) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  if (!callers.empty()) {
    if (reinterpret_cast<uintptr_t>(callers.data()) % page != 0 ||
        callers.size() < wanted) {
      return absl::InvalidArgumentError(
          absl::StrCat("the loop's memory has to be page-aligned and ", wanted,
                       " bytes long, not ", callers.size()));
    }
    return LoopMemory(callers, /*own=*/false);
  }
  if (wanted == 0) return LoopMemory({}, /*own=*/false);
  const size_t bytes = (wanted + page - 1) / page * page;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    return absl::InternalError(
        absl::StrCat("mmap of the loop's memory: ", std::strerror(errno)));
  }
  return LoopMemory(absl::MakeSpan(static_cast<std::byte*>(memory), bytes),
                    /*own=*/true);
}

LoopMemory::LoopMemory(LoopMemory&& other) noexcept
    : span_(std::exchange(other.span_, {})),
      own_(std::exchange(other.own_, false)) {}

LoopMemory::~LoopMemory() {
  if (own_) munmap(span_.data(), span_.size());
}

absl::StatusOr<UniqueFd> MakeEventFd() {
  UniqueFd event(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event.valid()) {
    return absl::InternalError(absl::StrCat("eventfd: ", std::strerror(errno)));
  }
  return event;
}

Loop::Stop LoopPlace::Woken(int32_t detail) {
  status().stop = BPFGRANT_STOP_WOKEN;
  status().detail = detail;
  return {Loop::Stop::Cause::kLoop, BPFGRANT_STOP_WOKEN, detail};
}

Loop::Stop LoopPlace::DeadlinePassed() {
  status().stop = BPFGRANT_STOP_WOKEN;
  status().detail = 0;
  return {Loop::Stop::Cause::kDeadline, BPFGRANT_STOP_WOKEN, 0};
}

}  // namespace bpfgrant
