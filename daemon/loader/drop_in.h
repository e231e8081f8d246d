// Drop-ins: NAME.manifest.d/*.conf, parts of a manifest by which an
// administrator says something of a program without a manifest of his own.
//
// One may describe the program and narrow what a grant of it is, and never say
// what the program is: whoever wants that writes a manifest, which has to be
// approved as a whole.

#ifndef DAEMON_LOADER_DROP_IN_H_
#define DAEMON_LOADER_DROP_IN_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "bpfgrant/v1/manifest.pb.h"

namespace bpfgrant::daemon {

inline constexpr std::string_view kDropInFolderSuffix = ".d";
inline constexpr std::string_view kDropInSuffix = ".conf";

struct DropIn {
  std::string file;  // as messages call it
  std::string bytes;
  // Why it may not widen what a grant is; "": it may.
  std::string objection;
};

// Applies it to a manifest that is right by itself, and still is then:
//
//   description, pool         take the place of the manifest's
//   tag                       are added, which lets rules of the policy match
//                             that did not: this widens
//   program.delivery          of the manifest's, these remain
//   map.rights                of the handle of the map so named; fewer
//   loop.step_budget          a smaller one
//   loop.trace                false
//   interface, sha256         must be the manifest's (a variant's): what it was
//                             written for
//
// Any other field: REASON_FILE_INVALID, "file:line:column: what".
// REASON_DIGEST_MISMATCH: of the last two. REASON_SIGNATURE: it widens and may
// not.
absl::Status ApplyDropIn(const DropIn& drop_in, v1::Manifest& manifest);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_DROP_IN_H_
