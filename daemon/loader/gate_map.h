// The gate map of the whole daemon: one slot for each instance. The broker
// opens and closes gates through its own mapping of it; the loader makes the
// map, and closes all of them when the broker is gone.

#ifndef DAEMON_LOADER_GATE_MAP_H_
#define DAEMON_LOADER_GATE_MAP_H_

#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"
#include "bpf-programs/include/bpfgrant/gate.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::daemon {

// Owns the map's fd and a mapping of it. The kernel keeps the map itself while
// a program that looks at it lives.
class GateMap {
 public:
  // A map with every gate closed. kInternal: the kernel refused, with its
  // errno.
  static absl::StatusOr<GateMap> Create();

  // The map of it alone.
  static absl::StatusOr<UniqueFd> MakeMap();
  // Such a map, with its gates as they are.
  static absl::StatusOr<GateMap> Map(UniqueFd fd);

  GateMap(GateMap&& other) noexcept
      : fd_(std::move(other.fd_)),
        slots_(std::exchange(other.slots_, nullptr)) {}
  GateMap& operator=(GateMap&&) = delete;
  ~GateMap();

  // Remains owned.
  int fd() const { return fd_.get(); }

  // Closes every gate. What runs at this moment ends by itself.
  void CloseAll();

 private:
  GateMap(UniqueFd fd, bpfgrant_gate_entry* slots)
      : fd_(std::move(fd)), slots_(slots) {}

  UniqueFd fd_;
  bpfgrant_gate_entry* slots_;
};

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_GATE_MAP_H_
