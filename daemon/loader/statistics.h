// What the kernel counts of BPF programs, and how full ring buffers are: two of
// its iterators tell (bpf-programs/census/statistics.bpf.c), of all objects of
// the machine, whoever holds them, and need no more than CAP_BPF and
// CAP_PERFMON.
//
// It must not open what it looks at, nor decide who may know.

#ifndef DAEMON_LOADER_STATISTICS_H_
#define DAEMON_LOADER_STATISTICS_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "bpf-programs/census/statistics.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::daemon {

struct Activity {
  // Whether the kernel counted runs while this was taken.
  bool counting = false;
  // By id, ascending.
  std::vector<bpfgrant_program_statistics> programs;
  std::vector<bpfgrant_ring_buffer_statistics> ring_buffers;

  // nullptr: there is none of that id.
  const bpfgrant_program_statistics* FindProgram(uint32_t id) const;
  const bpfgrant_ring_buffer_statistics* FindRingBuffer(uint32_t id) const;
};

class Statistics {
 public:
  // kUnimplemented, with what libbpf or the kernel said: this kernel does not
  // tell.
  static absl::StatusOr<Statistics> Create();

  // What exists now. Some 6 ms for 9,000 programs on two processors, and in
  // proportion to both. kInternal with the errno of the call that failed.
  absl::StatusOr<Activity> Take() const;

 private:
  Statistics(UniqueFd programs, UniqueFd ring_buffers, UniqueFd program)
      : programs_(std::move(programs)),
        ring_buffers_(std::move(ring_buffers)),
        program_(std::move(program)) {}

  // Links of the iterators; each keeps its program.
  UniqueFd programs_;
  UniqueFd ring_buffers_;
  // The first one's: its own runs tell whether runs are counted.
  UniqueFd program_;
};

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_STATISTICS_H_
