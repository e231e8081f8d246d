// The keys whose signatures count: NAME.pub in the directories of keys, laid
// over each other like those of programs. A masked key is one that there is
// not.

#ifndef DAEMON_LOADER_KEY_RING_H_
#define DAEMON_LOADER_KEY_RING_H_

#include <map>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "daemon/loader/ed25519.h"
#include "daemon/mitigations.h"

namespace bpfgrant::daemon {

inline constexpr std::string_view kPublicKeySuffix = ".pub";

class KeyRing {
 public:
  KeyRing() = default;

  // What is wrong with a key, or with its file, is kept for who asks for it.
  // Errors: OpenLayers', FindFiles'.
  static absl::StatusOr<KeyRing> Read(absl::Span<const std::string> folders,
                                      const Mitigations& mitigations);

  // kNotFound: there is none of that name, or it does not count, and why.
  absl::StatusOr<PublicKey> Find(const std::string& name) const;

 private:
  std::map<std::string, absl::StatusOr<PublicKey>> keys_;
};

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_KEY_RING_H_
