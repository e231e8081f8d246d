// A map to be made like one that an object only describes: what an array of
// maps holds, which libbpf forgets with the load.

#ifndef DAEMON_LOADER_MAP_SHAPE_H_
#define DAEMON_LOADER_MAP_SHAPE_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "bpfgrant/v1/messages.pb.h"
#include "proto/wire/unique_fd.h"

struct bpf_map;
struct bpf_object;

namespace bpfgrant::daemon {

class MapShape {
 public:
  // Of a map of an object that is not loaded yet.
  explicit MapShape(const bpf_map* map);

  // Makes one; `object` is that object, loaded by now. With `rights` the fd has
  // those and no more. REASON_LOAD_FAILED, REASON_BUSY: the kernel refused,
  // with its errno. kInternal: it did not narrow the fd.
  absl::StatusOr<UniqueFd> Make(const bpf_object* object,
                                const std::string& name,
                                std::optional<v1::Rights> rights) const;

 private:
  uint32_t type_, key_size_, value_size_, max_entries_, flags_;
  uint32_t key_type_, value_type_;  // in the object's BTF; 0: none
};

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_MAP_SHAPE_H_
