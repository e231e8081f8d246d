#include "daemon/broker/gates.h"

#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "daemon/broker/random.h"

namespace bpfgrant::broker {
namespace {

// In a slot, beside the nonce: its loop is traced (gate.bpf.h).
constexpr uint64_t kTraced = uint64_t{1} << 63;

uint64_t FreshNonce() {
  uint64_t nonce;
  do {
    nonce = RandomNonzero() & ~kTraced;
  } while (nonce == 0);
  return nonce;
}

size_t Bytes(uint32_t slots) { return size_t{slots} * sizeof(uint64_t); }

}  // namespace

absl::StatusOr<Gates> Gates::Map(UniqueFd map, uint32_t slots,
                                 bool fresh_nonces) {
  void* memory = mmap(nullptr, Bytes(slots), PROT_READ | PROT_WRITE, MAP_SHARED,
                      map.get(), 0);
  if (memory == MAP_FAILED) {
    return absl::InternalError(
        absl::StrCat("mmap of the gate map: ", std::strerror(errno)));
  }
  // The mapping keeps the map alive; its fd is not needed any more.
  return Gates(static_cast<uint64_t*>(memory), slots, fresh_nonces);
}

Gates::Gates(uint64_t* memory, uint32_t slots, bool fresh_nonces)
    : memory_(memory), slots_(slots), fresh_nonces_(fresh_nonces) {
  free_.reserve(slots);
  for (uint32_t slot = slots; slot > 0; --slot) free_.push_back(slot - 1);
}

Gates::Gates(Gates&& other) noexcept
    : memory_(std::exchange(other.memory_, nullptr)),
      slots_(other.slots_),
      fresh_nonces_(other.fresh_nonces_),
      free_(std::move(other.free_)) {}

Gates::~Gates() {
  if (memory_ != nullptr) munmap(memory_, Bytes(slots_));
}

std::optional<Gates::Gate> Gates::Allocate() {
  if (free_.empty()) return std::nullopt;
  const uint32_t slot = free_.back();
  free_.pop_back();
  return Gate{slot, fresh_nonces_ ? FreshNonce() : 1};
}

void Gates::Open(Gate gate) {
  std::atomic_ref<uint64_t>(memory_[gate.slot]).store(gate.nonce);
}

void Gates::Close(Gate gate) {
  if (IsOpen(gate)) std::atomic_ref<uint64_t>(memory_[gate.slot]).store(0);
}

void Gates::Free(Gate gate) {
  Close(gate);
  free_.push_back(gate.slot);
}

void Gates::CloseAll() {
  for (uint32_t slot = 0; slot < slots_; ++slot) {
    // Reading first keeps untouched pages untouched.
    std::atomic_ref<uint64_t> value(memory_[slot]);
    if (value.load() != 0) value.store(0);
  }
}

void Gates::SetTraced(Gate gate, bool traced) {
  if (!IsOpen(gate)) return;
  std::atomic_ref<uint64_t>(memory_[gate.slot])
      .store(traced ? gate.nonce | kTraced : gate.nonce);
}

bool Gates::IsOpen(Gate gate) const {
  return (std::atomic_ref<uint64_t>(memory_[gate.slot]).load() & ~kTraced) ==
         gate.nonce;
}

}  // namespace bpfgrant::broker
