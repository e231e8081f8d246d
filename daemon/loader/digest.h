// SHA-256, as the manifests write it. The one place that asks OpenSSL for it.

#ifndef DAEMON_LOADER_DIGEST_H_
#define DAEMON_LOADER_DIGEST_H_

#include <string>
#include <string_view>

#include "absl/types/span.h"

namespace bpfgrant::daemon {

// The digest of `parts` one behind the other: 64 lower-case hex digits. Empty
// if OpenSSL fails (no memory, or a policy of the machine's that forbids
// SHA-256); an empty digest equals no digest of a manifest.
std::string Sha256(absl::Span<const std::string_view> parts);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_DIGEST_H_
