#include "daemon/loader/layers.h"

#include <utility>

#include "proto/refusal/refusal.h"

namespace bpfgrant::daemon {
namespace {

absl::Status AddLayer(const std::string& path, const Mitigations& mitigations,
                      std::vector<Layer>& layers) {
  auto opened = SafeDirectory::Open(path, mitigations);
  if (absl::IsNotFound(opened.status())) return absl::OkStatus();
  const absl::Status safety = opened.status();
  if (ReasonOf(safety) == v1::REASON_FILE_UNSAFE) {
    Mitigations unjudged = mitigations;
    unjudged.file_safety = false;
    opened = SafeDirectory::Open(path, unjudged);
  }
  if (!opened.ok()) return safety;
  layers.push_back(
      {std::make_shared<const SafeDirectory>(*std::move(opened)), safety});
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<Layer>> OpenLayers(
    absl::Span<const std::string> paths, const Mitigations& mitigations) {
  std::vector<Layer> layers;
  for (const std::string& path : paths) {
    if (auto status = AddLayer(path, mitigations, layers); !status.ok()) {
      return status;
    }
  }
  return layers;
}

absl::StatusOr<std::vector<Layer>> OpenLayersBelow(
    absl::Span<const Layer> layers, const std::string& name) {
  std::vector<Layer> below;
  for (const Layer& layer : layers) {
    auto opened = layer.folder->OpenFolder(name);
    if (absl::IsNotFound(opened.status())) continue;
    if (!opened.ok()) return opened.status();
    below.push_back({std::make_shared<const SafeDirectory>(*std::move(opened)),
                     layer.safety});
  }
  return below;
}

absl::StatusOr<LayeredFiles> FindFiles(absl::Span<const Layer> layers,
                                       std::string_view suffix) {
  LayeredFiles found;
  for (const Layer& layer : layers) {
    const auto names = layer.folder->List(suffix);
    if (!names.ok()) return names.status();
    for (const std::string& name : *names) found[name] = layer;
  }
  return found;
}

absl::StatusOr<SealedBytes> ReadLayered(const Layer& layer,
                                        const std::string& name, size_t limit) {
  if (!layer.safety.ok()) return layer.safety;
  if (layer.folder->IsNullLink(name)) return SealedBytes();
  return layer.folder->Read(name, limit);
}

}  // namespace bpfgrant::daemon
