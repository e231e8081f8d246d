// The census: which BPF maps and programs exist on this machine, whoever holds
// them. Two iterators of the kernel's tell, and need no more than CAP_BPF and
// CAP_PERFMON; walking ids with bpf(2) would need CAP_SYS_ADMIN.
//
// It must not open what it counts: an id is all that anybody learns.

#ifndef DAEMON_LOADER_CENSUS_H_
#define DAEMON_LOADER_CENSUS_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::daemon {

// Ids, ascending.
//
// An object is in it from its making until its last reference is gone: fds, in
// flight or open, pins, attachments, links, and programs that use a map. Its
// memory may come back later. Ids are handed out upwards and begin anew after
// 2^31: should one of a lost object be taken again, that object seems to live
// until its successor is gone, too.
struct Existing {
  std::vector<uint32_t> maps;
  std::vector<uint32_t> programs;

  bool HasMap(uint32_t id) const;
  bool HasProgram(uint32_t id) const;
};

class Census {
 public:
  // kUnimplemented, with what libbpf or the kernel said: this kernel does not
  // tell.
  static absl::StatusOr<Census> Create();

  // What exists now. 1 ms for every few thousand objects. kInternal with the
  // errno of the call that failed.
  absl::StatusOr<Existing> Take() const;

 private:
  Census(UniqueFd maps, UniqueFd programs)
      : maps_(std::move(maps)), programs_(std::move(programs)) {}

  // Links of the iterators; each keeps its program.
  UniqueFd maps_;
  UniqueFd programs_;
};

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_CENSUS_H_
