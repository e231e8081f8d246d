#include "daemon/loader/catalog_cat.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bpfgrant/v1/policy.pb.h"
#include "daemon/loader/admission.h"
#include "daemon/loader/catalog_files.h"
#include "daemon/loader/layers.h"
#include "daemon/loader/manifest.h"
#include "daemon/loader/policy_files.h"
#include "proto/refusal/refusal.h"
#include "proto/text/text_file.h"
#include "proto/wire/limits.h"

namespace bpfgrant::daemon {
namespace {

void AddRefusal(const absl::Status& why, v1::CatEntry& entry) {
  // The first complaint is the one that the daemon has.
  if (!entry.refusal().empty()) return;
  const v1::Refusal refusal = RefusalOf(why);
  entry.set_reason(refusal.reason());
  entry.set_refusal(refusal.message());
}

void Read(const Layer& layer, const std::string& name, v1::CatFile& file,
          v1::CatEntry& entry) {
  const auto bytes = ReadLayered(layer, name, kMaxTextFileBytes);
  if (!bytes.ok()) return AddRefusal(bytes.status(), entry);
  if (bytes->view().empty()) file.set_state(v1::CatFile::MASKS);
  file.set_text(std::string(bytes->view()));
}

// Adds the files `name` of all layers, the last of which counts.
absl::Status AddFiles(absl::Span<const Layer> layers, const std::string& name,
                      v1::CatEntry& entry) {
  const int others = entry.file_size();
  const Layer* last = nullptr;
  for (const Layer& layer : layers) {
    const auto files = FindFiles({&layer, 1}, name);
    if (!files.ok()) return files.status();
    if (!files->contains(name)) continue;
    last = &layer;
    entry.add_file()->set_path(layer.folder->PathOf(name));
  }
  for (int i = others; i < entry.file_size(); ++i) {
    const bool counts = i + 1 == entry.file_size();
    entry.mutable_file(i)->set_state(counts ? v1::CatFile::COUNTS
                                            : v1::CatFile::REPLACED);
    if (counts) Read(*last, name, *entry.mutable_file(i), entry);
  }
  return absl::OkStatus();
}

absl::Status AddDropIns(absl::Span<const Layer> layers, const std::string& file,
                        v1::CatEntry& entry) {
  const auto below = OpenLayersBelow(
      layers, absl::StrCat(file, std::string(kDropInFolderSuffix)));
  if (!below.ok()) return below.status();
  const auto drop_ins = FindFiles(*below, kDropInSuffix);
  if (!drop_ins.ok()) return drop_ins.status();
  for (const auto& [name, layer] : *drop_ins) {
    if (auto status = AddFiles(*below, name, entry); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

void AddResult(const std::string& file, v1::CatEntry& entry) {
  const v1::CatFile* manifest = nullptr;
  std::vector<DropIn> drop_ins;
  for (const v1::CatFile& one : entry.file()) {
    if (one.state() != v1::CatFile::COUNTS) continue;
    if (manifest == nullptr) {
      manifest = &one;
    } else {
      drop_ins.push_back({one.path(), one.text(), {}});
    }
  }
  const auto parsed = Manifest::Parse(
      manifest->path(), std::string(StemOf(file)), manifest->text(), drop_ins);
  if (!parsed.ok()) return AddRefusal(parsed.status(), entry);
  *entry.mutable_result() = (*parsed)->message();
}

// The files of that name; `missing` if there is none.
absl::StatusOr<v1::CatEntry> Begin(absl::Span<const Layer> layers,
                                   const std::string& file,
                                   v1::Reason missing) {
  v1::CatEntry entry;
  entry.set_name(file);
  if (auto status = AddFiles(layers, file, entry); !status.ok()) return status;
  if (entry.file().empty()) {
    return Refuse(missing, absl::StrCat("there is no ", file));
  }
  entry.set_masked(entry.file(entry.file_size() - 1).state() ==
                   v1::CatFile::MASKS);
  return entry;
}

}  // namespace

absl::StatusOr<v1::CatEntry> CatManifest(
    const std::string& file, absl::Span<const std::string> folders) {
  const auto layers = OpenLayers(folders, Mitigations());
  if (!layers.ok()) return layers.status();
  auto entry = Begin(*layers, file, v1::REASON_UNKNOWN_PROGRAM);
  if (!entry.ok() || entry->masked()) return entry;
  if (auto status = AddDropIns(*layers, file, *entry); !status.ok()) {
    AddRefusal(status, *entry);
  }
  if (entry->refusal().empty()) AddResult(file, *entry);
  return entry;
}

absl::StatusOr<v1::CatEntry> CatPolicy(const std::string& file,
                                       absl::Span<const std::string> folders) {
  const auto layers = OpenLayers(folders, Mitigations());
  if (!layers.ok()) return layers.status();
  auto entry = Begin(*layers, file, v1::REASON_INVALID_ARGUMENT);
  if (!entry.ok()) return entry;
  v1::Policy policy;
  const v1::CatFile& last = entry->file(entry->file_size() - 1);
  if (auto status = TextFile(last.path()).Parse(last.text(), policy);
      !status.ok()) {
    AddRefusal(status, *entry);
  }
  return entry;
}

}  // namespace bpfgrant::daemon
