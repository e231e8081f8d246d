// The files of a catalog: whose manifest of a name counts, and all that
// approves the program of that name.
//
// It reads them and does not judge what is in them: that is admission.h.

#ifndef DAEMON_LOADER_CATALOG_FILES_H_
#define DAEMON_LOADER_CATALOG_FILES_H_

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "daemon/loader/drop_in.h"
#include "daemon/loader/layers.h"
#include "daemon/loader/safe_file.h"
#include "daemon/loader/signature_check.h"
#include "daemon/mitigations.h"

namespace bpfgrant::daemon {

// A manifest and what drops in, in the order of the file names.
struct Approval {
  SealedBytes manifest;
  std::set<std::string> signers;  // SignatureCheck::Finding's keys
  std::vector<DropIn> drop_ins;

  // There is no such program.
  bool masked() const { return manifest.view().empty(); }
};

class CatalogFiles {
 public:
  // Errors: OpenLayers', FindFiles'.
  static absl::StatusOr<CatalogFiles> Find(
      absl::Span<const std::string> folders, const Mitigations& mitigations);

  // "*.manifest", with the folder whose file of that name counts.
  const LayeredFiles& manifests() const { return manifests_; }

  // The drop-ins of one of them, "NAME.manifest.d/*.conf" of all folders.
  // Errors: OpenLayersBelow's, FindFiles'.
  absl::StatusOr<LayeredFiles> FindDropIns(const std::string& file) const;

  // Reads one of them and its drop-ins. The first complaint ends it, whichever
  // file it is about: what narrows must not be lost. Errors: ReadLayered's,
  // FindDropIns'; REASON_SIGNATURE: the manifest is not signed as it has to be.
  // A drop-in that is not may still narrow.
  absl::StatusOr<Approval> Read(
      const std::string& file,
      const SignatureCheck& signatures = SignatureCheck()) const;

 private:
  CatalogFiles(std::vector<Layer> layers, LayeredFiles manifests)
      : layers_(std::move(layers)), manifests_(std::move(manifests)) {}

  std::vector<Layer> layers_;
  LayeredFiles manifests_;
};

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_CATALOG_FILES_H_
