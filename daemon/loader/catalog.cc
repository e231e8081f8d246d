#include "daemon/loader/catalog.h"

#include <set>

#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant::daemon {
namespace {

// By file name; a later folder's replaces an earlier one's, null masks it.
using Found = std::map<std::string, std::shared_ptr<const Program>>;

// A folder that others can write is read for the names in it only: dropping it
// whole would uncover the programs that it overrides or masks.
absl::Status AddUnsafe(const std::string& path, const absl::Status& why,
                       Found& found) {
  Mitigations unjudged;
  unjudged.file_safety = false;
  const auto folder = SafeDirectory::Open(path, unjudged);
  if (!folder.ok()) return why;
  const auto files = folder->List(kManifestSuffix);
  if (!files.ok()) return files.status();
  for (const std::string& file : *files) {
    found[file] = Unavailable(StemOf(file), folder->PathOf(file), why);
  }
  return absl::OkStatus();
}

std::shared_ptr<const Program> ReadEntry(const SafeDirectory& folder,
                                         const std::string& file,
                                         Admission& admission) {
  const auto bytes = folder.Read(file, kMaxTextFileBytes);
  if (!bytes.ok()) {
    return Unavailable(StemOf(file), folder.PathOf(file), bytes.status());
  }
  if (bytes->view().empty()) return nullptr;
  return admission.Admit(folder, file, bytes->view());
}

absl::Status AddFolder(const std::string& path, Admission& admission,
                       Found& found) {
  const auto folder = SafeDirectory::Open(path, admission.mitigations());
  if (absl::IsNotFound(folder.status())) return absl::OkStatus();
  if (ReasonOf(folder.status()) == v1::REASON_FILE_UNSAFE) {
    return AddUnsafe(path, folder.status(), found);
  }
  if (!folder.ok()) return folder.status();
  const auto files = folder->List(kManifestSuffix);
  if (!files.ok()) return files.status();
  for (const std::string& file : *files) {
    found[file] = ReadEntry(*folder, file, admission);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Catalog> Catalog::Read(absl::Span<const std::string> folders,
                                      Admission& admission) {
  Found found;
  for (const std::string& path : folders) {
    if (auto status = AddFolder(path, admission, found); !status.ok()) {
      return status;
    }
  }
  Catalog catalog;
  std::set<std::string> identities;
  for (auto& [file, program] : found) {
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
