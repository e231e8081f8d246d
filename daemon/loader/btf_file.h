// The bytes of BTF in a file that may be anything.

#ifndef DAEMON_LOADER_BTF_FILE_H_
#define DAEMON_LOADER_BTF_FILE_H_

#include <string>

#include "absl/status/statusor.h"

namespace bpfgrant::daemon {

// All of the open file if it is BTF, its section .BTF if it is an ELF file; of
// 64 MiB at most. Whether libbpf takes them is another question.
//
// kInvalidArgument: it is neither, no plain file, or larger. kInternal: a call
// failed, with its errno.
absl::StatusOr<std::string> ReadBtf(int file);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_BTF_FILE_H_
