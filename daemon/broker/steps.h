// The steps of loops with swappable maps, as their entry counts them: a grace
// period does not wait for a step, which can sleep.

#ifndef DAEMON_BROKER_STEPS_H_
#define DAEMON_BROKER_STEPS_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "bpf-programs/include/bpfgrant/gate.h"
#include "daemon/broker/gates.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::broker {

class Steps {
 public:
  // kInternal if the map cannot be mapped.
  static absl::StatusOr<Steps> Map(UniqueFd map);
  ~Steps();
  Steps(Steps&& other) noexcept;
  Steps& operator=(Steps&&) = delete;

  // How many have begun. Read after maps were turned over: the step under way,
  // if there is one, and those before it may have seen the old ones.
  uint32_t Begun(Gates::Gate gate) const;
  // Whether so many have ended.
  bool HaveEnded(Gates::Gate gate, uint32_t begun) const;

 private:
  explicit Steps(bpfgrant_steps* memory) : memory_(memory) {}

  bpfgrant_steps* memory_;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_STEPS_H_
