#include "daemon/loader/catalog.h"

#include <set>

#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant::daemon {
namespace {

using Found = std::map<std::string, ManifestFile>;

// A folder that others can write is read for the names in it only: dropping it
// whole would uncover the programs that it overrides or masks.
absl::Status AddFolder(const std::string& path, const Mitigations& mitigations,
                       const absl::Status& safety, Found& found) {
  auto opened = SafeDirectory::Open(path, mitigations);
  if (absl::IsNotFound(opened.status())) return absl::OkStatus();
  if (safety.ok() && ReasonOf(opened.status()) == v1::REASON_FILE_UNSAFE) {
    Mitigations unjudged;
    unjudged.file_safety = false;
    return AddFolder(path, unjudged, opened.status(), found);
  }
  if (!opened.ok()) return safety.ok() ? opened.status() : safety;
  const auto folder = std::make_shared<const SafeDirectory>(*std::move(opened));
  const auto files = folder->List(kManifestSuffix);
  if (!files.ok()) return files.status();
  for (const std::string& file : *files) found[file] = {folder, safety};
  return absl::OkStatus();
}

std::shared_ptr<const Program> ReadEntry(const ManifestFile& from,
                                         const std::string& file,
                                         Admission& admission) {
  const SafeDirectory& folder = *from.folder;
  if (!from.safety.ok()) {
    return Unavailable(StemOf(file), folder.PathOf(file), from.safety);
  }
  const auto bytes = folder.Read(file, kMaxTextFileBytes);
  if (!bytes.ok()) {
    return Unavailable(StemOf(file), folder.PathOf(file), bytes.status());
  }
  if (bytes->view().empty()) return nullptr;
  return admission.Admit(folder, file, bytes->view());
}

}  // namespace

absl::StatusOr<Found> FindManifests(absl::Span<const std::string> folders,
                                    const Mitigations& mitigations) {
  Found found;
  for (const std::string& path : folders) {
    if (auto status = AddFolder(path, mitigations, absl::OkStatus(), found);
        !status.ok()) {
      return status;
    }
  }
  return found;
}

absl::StatusOr<Catalog> Catalog::Read(absl::Span<const std::string> folders,
                                      Admission& admission) {
  const auto found = FindManifests(folders, admission.mitigations());
  if (!found.ok()) return found.status();
  Catalog catalog;
  std::set<std::string> identities;
  for (const auto& [file, from] : *found) {
    auto program = ReadEntry(from, file, admission);
    if (program == nullptr) continue;
    identities.insert(program->entry.identity());
    identities.insert(program->other_identities.begin(),
                      program->other_identities.end());
    catalog.programs_[program->name()] = std::move(program);
  }
  admission.KeepOnly(identities);
  return catalog;
}

std::shared_ptr<const Program> Catalog::Find(std::string_view name) const {
  const auto found = programs_.find(name);
  return found == programs_.end() ? nullptr : found->second;
}

Snapshot Catalog::Describe(absl::Span<const CompiledRule> rules) const {
  Snapshot snapshot;
  for (const auto& [name, program] : programs_) {
    *snapshot.add_entry() = program->entry;
  }
  for (const CompiledRule& rule : rules) *snapshot.add_rule() = rule;
  return snapshot;
}

}  // namespace bpfgrant::daemon
