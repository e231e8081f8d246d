#include "daemon/loader/catalog_files.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/loader/admission.h"
#include "daemon/loader/manifest.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant::daemon {
namespace {

std::string DropInFolderOf(const std::string& file) {
  return absl::StrCat(file, std::string(kDropInFolderSuffix));
}

}  // namespace

absl::StatusOr<CatalogFiles> CatalogFiles::Find(
    absl::Span<const std::string> folders, const Mitigations& mitigations) {
  auto layers = OpenLayers(folders, mitigations);
  if (!layers.ok()) return layers.status();
  auto manifests = FindFiles(*layers, kManifestSuffix);
  if (!manifests.ok()) return manifests.status();
  return CatalogFiles(*std::move(layers), *std::move(manifests));
}

absl::StatusOr<LayeredFiles> CatalogFiles::FindDropIns(
    const std::string& file) const {
  const auto layers = OpenLayersBelow(layers_, DropInFolderOf(file));
  if (!layers.ok()) return layers.status();
  return FindFiles(*layers, kDropInSuffix);
}

absl::StatusOr<Approval> CatalogFiles::Read(
    const std::string& file, const SignatureCheck& signatures) const {
  Approval approval;
  const Layer& from = manifests_.at(file);
  auto manifest = ReadLayered(from, file, kMaxTextFileBytes);
  if (!manifest.ok()) return manifest.status();
  approval.manifest = *std::move(manifest);
  if (approval.masked()) return approval;
  const std::string program(StemOf(file));
  SignatureCheck::Finding signature =
      signatures.Check({from.folder->path(), program, file}, *from.folder, file,
                       approval.manifest.view());
  if (!signature.objection.empty()) {
    return Refuse(v1::REASON_SIGNATURE, signature.objection);
  }
  approval.signers = std::move(signature.keys);
  const auto drop_ins = FindDropIns(file);
  if (!drop_ins.ok()) return drop_ins.status();
  for (const auto& [name, layer] : *drop_ins) {
    const auto bytes = ReadLayered(layer, name, kMaxTextFileBytes);
    if (!bytes.ok()) return bytes.status();
    if (bytes->view().empty()) continue;
    const std::string folder = DropInFolderOf(file);
    const std::string& path = layer.folder->path();
    approval.drop_ins.push_back(
        {layer.folder->PathOf(name), std::string(bytes->view()),
         signatures
             .Check({path.substr(0, path.size() - folder.size() - 1), program,
                     absl::StrCat(folder, "/", name)},
                    *layer.folder, name, bytes->view())
             .objection});
  }
  return approval;
}

}  // namespace bpfgrant::daemon
