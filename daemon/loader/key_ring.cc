#include "daemon/loader/key_ring.h"

#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "daemon/loader/layers.h"

namespace bpfgrant::daemon {
namespace {

constexpr size_t kMaxKeyBytes = 16 * 1024;

absl::StatusOr<PublicKey> Parse(const Layer& layer, const std::string& file,
                                const absl::StatusOr<SealedBytes>& pem) {
  if (!pem.ok()) return pem.status();
  return PublicKey::Parse(layer.folder->PathOf(file), pem->view());
}

}  // namespace

absl::StatusOr<KeyRing> KeyRing::Read(absl::Span<const std::string> folders,
                                      const Mitigations& mitigations) {
  const auto layers = OpenLayers(folders, mitigations);
  if (!layers.ok()) return layers.status();
  const auto files = FindFiles(*layers, kPublicKeySuffix);
  if (!files.ok()) return files.status();
  KeyRing ring;
  for (const auto& [file, layer] : *files) {
    const auto pem = ReadLayered(layer, file, kMaxKeyBytes);
    if (pem.ok() && pem->view().empty()) continue;
    const std::string name =
        file.substr(0, file.size() - kPublicKeySuffix.size());
    ring.keys_.emplace(name, Parse(layer, file, pem));
  }
  return ring;
}

absl::StatusOr<PublicKey> KeyRing::Find(const std::string& name) const {
  const auto found = keys_.find(name);
  if (found == keys_.end()) {
    return absl::NotFoundError(absl::StrCat("there is no key '", name, "'"));
  }
  if (!found->second.ok()) {
    return absl::NotFoundError(absl::StrCat(
        "key '", name, "' does not count: ", found->second.status().message()));
  }
  return *found->second;
}

}  // namespace bpfgrant::daemon
