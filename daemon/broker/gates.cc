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

constexpr uint64_t kTraced = BPFGRANT_GATE_TRACED;

uint64_t FreshNonce() {
  uint64_t nonce;
  do {
    nonce = RandomNonzero() & ~kTraced;
  } while (nonce == 0);
  return nonce;
}

size_t Bytes(uint32_t slots) {
  return size_t{slots} * sizeof(bpfgrant_gate_entry);
}

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
  return Gates(static_cast<bpfgrant_gate_entry*>(memory), slots, fresh_nonces);
}

Gates::Gates(bpfgrant_gate_entry* memory, uint32_t slots, bool fresh_nonces)
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
  // Reading first keeps untouched pages untouched.
  std::atomic_ref<__u64> swaps(memory_[slot].swaps);
  if (swaps.load() != 0) swaps.store(0);
  return Gate{slot, fresh_nonces_ ? FreshNonce() : 1};
}

void Gates::Restore(const std::vector<Gate>& taken) {
  std::vector<bool> is_taken(slots_);
  for (const Gate& gate : taken) is_taken[gate.slot] = true;
  std::erase_if(free_, [&](uint32_t slot) { return is_taken[slot]; });
  for (const uint32_t slot : free_) {
    std::atomic_ref<__u64> value(memory_[slot].nonce);
    if (value.load() != 0) value.store(0);
  }
}

void Gates::Open(Gate gate) { Nonce(gate).store(gate.nonce); }

void Gates::Close(Gate gate) {
  if (IsOpen(gate)) Nonce(gate).store(0);
}

void Gates::Free(Gate gate) {
  Close(gate);
  free_.push_back(gate.slot);
}

void Gates::CloseAll() {
  for (uint32_t slot = 0; slot < slots_; ++slot) {
    std::atomic_ref<__u64> value(memory_[slot].nonce);
    if (value.load() != 0) value.store(0);
  }
}

void Gates::SetTraced(Gate gate, bool traced) {
  if (!IsOpen(gate)) return;
  Nonce(gate).store(traced ? gate.nonce | kTraced : gate.nonce);
}

uint64_t Gates::Swaps(Gate gate) const {
  return std::atomic_ref<__u64>(memory_[gate.slot].swaps).load();
}

void Gates::Swap(Gate gate, uint64_t bits) {
  std::atomic_ref<__u64>(memory_[gate.slot].swaps).fetch_xor(bits);
}

bool Gates::IsOpen(Gate gate) const {
  return (Nonce(gate).load() & ~kTraced) == gate.nonce;
}

}  // namespace bpfgrant::broker
