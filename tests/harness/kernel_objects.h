// The BPF programs, maps and links that the whole machine has, by their ids:
// whether something lives on that should be gone. Needs CAP_SYS_ADMIN.

#ifndef TESTS_HARNESS_KERNEL_OBJECTS_H_
#define TESTS_HARNESS_KERNEL_OBJECTS_H_

#include <chrono>
#include <cstdint>
#include <set>
#include <string>

#include "absl/status/statusor.h"

namespace bpfgrant::test {

struct KernelObjects {
  std::set<uint32_t> programs, maps, links;

  bool empty() const {
    return programs.empty() && maps.empty() && links.empty();
  }
  bool operator==(const KernelObjects&) const = default;
  // What is here and not in `others`.
  KernelObjects Without(const KernelObjects& others) const;
  // "programs 3 4; maps 17; links none".
  std::string Describe() const;
};

// All there are now. Others on the machine make and drop theirs at any time.
//
// kPermissionDenied: without CAP_SYS_ADMIN. kInternal: another errno of bpf(2).
absl::StatusOr<KernelObjects> ListKernelObjects();

// The id of the object behind an fd; 0 if the kernel does not tell.
uint32_t IdOfProgram(int fd);
uint32_t IdOfMap(int fd);

// How often the kernel passed over one of `programs` that a tracepoint should
// have run, since a task that was preempted inside it was on the same processor
// (bpf_prog_info.recursion_misses). 0 for those that are gone.
uint64_t MissedRuns(const std::set<uint32_t>& programs);

// Waits until none of `objects` is there any more: the kernel drops them some
// time after their last fd. Returns those that are still there after `timeout`;
// empty: all are gone. An id is not used again soon: the kernel counts upwards.
absl::StatusOr<KernelObjects> WaitUntilGone(const KernelObjects& objects,
                                            std::chrono::milliseconds timeout);

}  // namespace bpfgrant::test

#endif  // TESTS_HARNESS_KERNEL_OBJECTS_H_
