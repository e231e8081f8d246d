#include "daemon/loader/catalog.h"

#include <set>

#include "daemon/loader/catalog_files.h"

namespace bpfgrant::daemon {
namespace {

std::shared_ptr<const Program> ReadEntry(const CatalogFiles& files,
                                         const std::string& file,
                                         const Layer& from,
                                         const SignatureCheck& signatures,
                                         Admission& admission) {
  const auto approval = files.Read(file, signatures);
  if (!approval.ok()) {
    return Unavailable(StemOf(file), from.folder->PathOf(file),
                       approval.status());
  }
  if (approval->masked()) return nullptr;
  return admission.Admit(*from.folder, file, approval->manifest.view(),
                         approval->drop_ins);
}

}  // namespace

absl::StatusOr<Catalog> Catalog::Read(absl::Span<const std::string> folders,
                                      Admission& admission,
                                      const SignatureCheck& signatures) {
  const auto files = CatalogFiles::Find(folders, admission.mitigations());
  if (!files.ok()) return files.status();
  Catalog catalog;
  std::set<std::string> identities;
  for (const auto& [file, from] : files->manifests()) {
    auto program = ReadEntry(*files, file, from, signatures, admission);
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
