// The trial load: whether this kernel takes a program, and whether a gate can
// stop it. What was loaded for it is gone again afterwards.

#ifndef DAEMON_LOADER_TRIAL_H_
#define DAEMON_LOADER_TRIAL_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bpfgrant/v1/manifest.pb.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::daemon {

struct TrialResult {
  // OK, REASON_VERIFIER, REASON_GATE_MISSING, REASON_KERNEL_TOO_OLD,
  // REASON_OBJECT_MISMATCH (of swappable maps), REASON_LOAD_FAILED, or
  // REASON_BUSY for what may go better another time.
  absl::Status status;
  // The end of what the verifier said when it refused.
  std::string verifier_log;
  // Whether a holder of the program's fd can run it (BPF_PROG_TEST_RUN).
  bool runnable = false;
};

// Owns the gate's twin: a map of the same shape that programs may only read
// (BPF_F_RDONLY_PROG). A program that the verifier lets pass with the twin in
// the gate's place writes the gate on no path that its constants leave open.
// The real gate cannot have that flag itself, since the kernel then refuses the
// broker's writable mapping (array_map_mmap and bpf_map_mmap,
// kernel/bpf/syscall.c: EACCES).
class Trial {
 public:
  // The kernel makes no such map: kPermissionDenied; kUnimplemented: it has no
  // bpf(2); or as its errno is.
  static absl::StatusOr<Trial> Create();

  // Loads the object `bytes`, which CheckObject found good, with constants like
  // the ones of an instance, probes the program, and closes all of it.
  TrialResult Run(std::string_view bytes, const v1::Manifest& manifest) const;

 private:
  absl::Status RunForAnyGate(std::string_view bytes,
                             const v1::Manifest& manifest,
                             std::vector<char>& log) const;

  Trial(UniqueFd twin, unsigned int id) : twin_(std::move(twin)), id_(id) {}

  UniqueFd twin_;
  unsigned int id_;
};

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_TRIAL_H_
