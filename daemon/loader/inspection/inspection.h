// What is in a BPF object, as its file tells: programs, maps, what is called,
// who uses what, and what in it is dangerous.
//
// It must not load anything into the kernel, nor trust the file.

#ifndef DAEMON_LOADER_INSPECTION_INSPECTION_H_
#define DAEMON_LOADER_INSPECTION_INSPECTION_H_

#include <chrono>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "bpfgrant/v1/inspection.pb.h"

namespace bpfgrant::daemon {

// Of an io_uring loop: a type that libbpf has no name for, since its program is
// made when the loader links its entry in front of it.
inline constexpr char kLoopType[] = "io_uring_loop";

// The file at `path`, of at most kMaxObjectBytes, read in a child process that
// can do nothing but compute and answer, with bounded memory, and is killed at
// the deadline. To be called before there are threads. Needs no privilege.
//
// REASON_FILE_INVALID: it is no BPF object, with libbpf's words, or the reader
// died of it. REASON_OBJECT_MISMATCH: a loop's step that does not link.
// REASON_TOO_LARGE. kInvalidArgument: it cannot be read, or is no plain file.
// kDeadlineExceeded. kInternal: a call failed.
absl::StatusOr<v1::Inspection> InspectFile(const std::string& path,
                                           std::chrono::milliseconds deadline);

// The same of bytes, in this process: for whoever is confined. Of a loop they
// are those that LinkLoop made. Without file, size and digest.
// REASON_FILE_INVALID.
absl::StatusOr<v1::Inspection> InspectObject(std::string_view object);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_INSPECTION_INSPECTION_H_
