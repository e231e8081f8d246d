// The parts of a manifest that tracing programs have.

#ifndef DAEMON_LOADER_TRACING_MANIFEST_H_
#define DAEMON_LOADER_TRACING_MANIFEST_H_

#include "absl/status/status.h"
#include "bpfgrant/v1/manifest.pb.h"
#include "bpfgrant/v1/messages.pb.h"
#include "proto/text/text_file.h"

namespace bpfgrant::daemon {

inline bool IsTracing(const v1::Manifest& manifest) {
  return manifest.program().type() == v1::Manifest::TRACING;
}

// What only tracing programs have, is there in such a manifest and makes sense,
// and is not in another's. REASON_FILE_INVALID, with the place.
absl::Status CheckTracing(const TextFile& text, const v1::Manifest& manifest);

// Functions and tracepoints, for a client.
void DescribeHooks(const v1::Manifest& manifest,
                   v1::ProgramDescription& description);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_TRACING_MANIFEST_H_
