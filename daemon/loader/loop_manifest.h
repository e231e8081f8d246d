// The parts of a manifest that loops have.

#ifndef DAEMON_LOADER_LOOP_MANIFEST_H_
#define DAEMON_LOADER_LOOP_MANIFEST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "bpfgrant/v1/manifest.pb.h"
#include "bpfgrant/v1/messages.pb.h"
#include "proto/text/text_file.h"

namespace bpfgrant::daemon {

inline bool IsLoop(const v1::Manifest& manifest) {
  return manifest.program().type() == v1::Manifest::IO_URING_LOOP;
}

// What only loops have, is there in a loop's manifest and makes sense, and is
// not in another's. REASON_FILE_INVALID, with the place.
absl::Status CheckLoop(const TextFile& text, const v1::Manifest& manifest);

// What a client is told of the ring it has to make.
v1::LoopDescription DescribeLoop(const v1::Manifest& manifest);

// All that a loop's ring may do once it is enabled, as numbers.
struct LoopRights {
  std::vector<uint8_t> operations;  // enum io_uring_op
  uint8_t request_flags = 0;        // IOSQE_*
  std::vector<uint8_t> register_calls;
};
LoopRights RightsOf(const v1::Manifest::Loop& loop);

// The names of maps with SCOPE_SESSION, in the manifest's order.
std::vector<std::string> SessionMaps(const v1::Manifest& manifest);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_LOOP_MANIFEST_H_
