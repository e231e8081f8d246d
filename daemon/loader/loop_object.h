// A loop's linked object between open and load, and the structure that attaches
// it afterwards.

#ifndef DAEMON_LOADER_LOOP_OBJECT_H_
#define DAEMON_LOADER_LOOP_OBJECT_H_

#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bpfgrant/v1/manifest.pb.h"
#include "daemon/loader/needs.h"
#include "daemon/mitigations.h"
#include "proto/wire/unique_fd.h"

struct bpf_object;

namespace bpfgrant::daemon {

// The ring's number in the table of the process that attaches: it is written
// into the loop's structure when the loop is loaded, and the ring is put there
// when it is attached.
inline constexpr int kRingNumber = 1000;

// Maps of the entry's: the client's view of the loop, the daemon's ring buffer
// for traces and its count of steps, and the structure io_uring_bpf_ops.
inline constexpr char kLoopStatusMap[] = "bpfgrant_status";
inline constexpr char kLoopTraceMap[] = "bpfgrant_trace";
inline constexpr char kLoopStepsMap[] = "bpfgrant_steps";
inline constexpr char kLoopStructureMap[] = "bpfgrant_ops";
// Under which the client gets the first of them.
inline constexpr char kLoopStatusHandle[] = "status";

bool IsEntryMap(std::string_view name);

// Sets the constants of the entry, and those that the manifest binds, before a
// load. REASON_OBJECT_MISMATCH: the object lacks one.
absl::Status SetLoopConstants(bpf_object* object, const v1::Manifest& manifest,
                              const Mitigations& mitigations);

// After the load: completes the structure with program and ring number, so that
// a link is all that is left to make. kInternal: the kernel refused.
absl::Status PrepareStructure(const bpf_object* object);

// The ring buffer that traced loops write to, one for the daemon. kInternal:
// the kernel refused.
absl::StatusOr<UniqueFd> MakeTraceBuffer();

// Where loops with swappable maps count their steps, one for the daemon, slots
// as the gate's. kInternal: the kernel refused.
absl::StatusOr<UniqueFd> MakeStepsMap();

// Whether this kernel has loops: struct io_uring_bpf_ops in its BTF.
bool KernelHasLoops();
// The same of a kernel with these types.
bool HasLoops(const KernelTypes& kernel);
inline constexpr char kNoLoops[] =
    "the kernel has no io_uring loops (struct io_uring_bpf_ops, Linux 7.1 with "
    "CONFIG_IO_URING_BPF_OPS)";

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_LOOP_OBJECT_H_
