// The gates: one slot an instance, in memory that programs read.
//
// An instance runs while its slot holds its nonce. Closing a gate is one store
// through the daemon's own mapping; it takes effect at the program's next run,
// wherever its fds have gone. A slot's next tenant has another nonce, so that
// an old program that somebody still holds never wakes up again.

#ifndef DAEMON_BROKER_GATES_H_
#define DAEMON_BROKER_GATES_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "bpf-programs/include/bpfgrant/gate.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::broker {

class Gates {
 public:
  // One instance's place: closed until Open.
  struct Gate {
    uint32_t slot = 0;
    uint64_t nonce = 0;  // never 0, and below 2^63
  };

  // Maps `slots` slots of the gate map `map`. kInternal if that fails.
  // `fresh_nonces` off gives every tenant the same one: for tests only.
  static absl::StatusOr<Gates> Map(UniqueFd map, uint32_t slots,
                                   bool fresh_nonces);
  ~Gates();
  Gates(Gates&& other) noexcept;
  Gates& operator=(Gates&&) = delete;

  // A slot of its own with a nonce nobody had; nothing when all are taken.
  std::optional<Gate> Allocate();
  // The gates that an earlier broker had allocated, and that are taken from now
  // on, open or not as they are. All others are closed. Before the first
  // Allocate.
  void Restore(const std::vector<Gate>& taken);
  // From now on the instance may run.
  void Open(Gate gate);
  // From its next run on the instance does nothing. Idempotent; leaves a slot
  // alone that has another tenant by now.
  void Close(Gate gate);
  // Closes and gives the slot back. Exactly once for each Allocate.
  void Free(Gate gate);
  void CloseAll();
  // Whether the instance's loop, while its gate is open, records its steps.
  void SetTraced(Gate gate, bool traced);

  // Which of its two maps each swappable map of the instance is now, a bit
  // each. All 0 with a new gate.
  uint64_t Swaps(Gate gate) const;
  // Turns those bits over, all at once, for runs that begin from now on.
  void Swap(Gate gate, uint64_t bits);

  bool IsOpen(Gate gate) const;
  uint32_t slots() const { return slots_; }
  uint32_t used() const { return slots_ - static_cast<uint32_t>(free_.size()); }

 private:
  Gates(bpfgrant_gate_entry* memory, uint32_t slots, bool fresh_nonces);

  std::atomic_ref<__u64> Nonce(Gate gate) const {
    return std::atomic_ref<__u64>(memory_[gate.slot].nonce);
  }

  bpfgrant_gate_entry* memory_ = nullptr;
  uint32_t slots_ = 0;
  bool fresh_nonces_ = true;
  // The last one freed is the next one taken: few pages are ever touched.
  std::vector<uint32_t> free_;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_GATES_H_
