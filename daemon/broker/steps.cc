#include "daemon/broker/steps.h"

#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/wire/limits.h"

namespace bpfgrant::broker {
namespace {

constexpr size_t kBytes = size_t{kGateSlots} * sizeof(bpfgrant_steps);

}  // namespace

absl::StatusOr<Steps> Steps::Map(UniqueFd map) {
  void* memory = mmap(nullptr, kBytes, PROT_READ, MAP_SHARED, map.get(), 0);
  if (memory == MAP_FAILED) {
    return absl::InternalError(
        absl::StrCat("mmap of the map of steps: ", std::strerror(errno)));
  }
  return Steps(static_cast<bpfgrant_steps*>(memory));
}

Steps::~Steps() {
  if (memory_ != nullptr) munmap(memory_, kBytes);
}

Steps::Steps(Steps&& other) noexcept
    : memory_(std::exchange(other.memory_, nullptr)) {}

uint32_t Steps::Begun(Gates::Gate gate) const {
  return std::atomic_ref<uint32_t>(memory_[gate.slot].begun).load();
}

bool Steps::HaveEnded(Gates::Gate gate, uint32_t begun) const {
  const uint32_t ended =
      std::atomic_ref<uint32_t>(memory_[gate.slot].ended).load();
  return static_cast<int32_t>(ended - begun) >= 0;
}

}  // namespace bpfgrant::broker
