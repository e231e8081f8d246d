// What a kernel's BTF tells of a program, without loading it: of this kernel
// for who has no privilege, or of one that is not running.
//
// What it cannot tell is what the verifier makes of the program.

#ifndef DAEMON_LOADER_FORECAST_H_
#define DAEMON_LOADER_FORECAST_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "daemon/loader/admission.h"
#include "daemon/loader/needs.h"

namespace bpfgrant::daemon {

struct Forecast {
  // OK: nothing speaks against it. Else the refusal, with its place:
  // REASON_KERNEL_TOO_OLD, or what is wrong with the object.
  absl::Status against;
  // What the kernel has not got and the program may be able to do without.
  std::vector<std::string> open;
};

// Of a program that Inspect let pass; of a manifest with variants, `variant`.
// Looks at its needs, its type, its maps' types, and what the code refers to:
// helpers, functions of the kernel's with their prototypes, types and members.
// Modules' functions and types are not in a kernel's BTF. All code is taken for
// code that runs, unless the program asks what the kernel has and something of
// that is missing.
Forecast Foretell(const Program& program, int variant,
                  const KernelTypes& kernel);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_FORECAST_H_
