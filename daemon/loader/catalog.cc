#include "daemon/loader/catalog.h"

#include <algorithm>
#include <utility>

namespace bpfgrant::daemon {
namespace {

// nullptr: there is none.
std::shared_ptr<const Program> ReadEntry(
    const absl::StatusOr<Approval>& approval, const std::string& file,
    const Layer& from, Admission& admission) {
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
  auto reader = CatalogReader::Begin(folders, admission, signatures);
  if (!reader.ok()) return reader.status();
  while (reader->Step()) {
  }
  return (*std::move(reader)).Finish();
}

absl::StatusOr<CatalogReader> CatalogReader::Begin(
    absl::Span<const std::string> folders, Admission& admission,
    SignatureCheck signatures) {
  auto files = CatalogFiles::Find(folders, admission.mitigations());
  if (!files.ok()) return files.status();
  return CatalogReader(*std::move(files), admission, std::move(signatures));
}

CatalogReader::CatalogReader(CatalogFiles files, Admission& admission,
                             SignatureCheck signatures)
    : files_(std::move(files)),
      admission_(&admission),
      signatures_(std::move(signatures)) {
  for (const auto& [file, from] : files_.manifests()) left_.push_back(file);
  // By name: totals are counted in that order.
  std::reverse(left_.begin(), left_.end());
}

bool CatalogReader::Step() {
  if (left_.empty()) return false;
  const std::string file = std::move(left_.back());
  left_.pop_back();
  auto approval = files_.Read(file, signatures_);
  auto program =
      ReadEntry(approval, file, files_.manifests().at(file), *admission_);
  if (program == nullptr) return true;
  if (approval.ok() && !approval->signers.empty()) {
    catalog_.signers_[program->name()] = std::move(approval->signers);
  }
  identities_.insert(program->entry.identity());
  identities_.insert(program->other_identities.begin(),
                     program->other_identities.end());
  catalog_.programs_[program->name()] = std::move(program);
  return true;
}

Catalog CatalogReader::Finish() && {
  admission_->KeepOnly(identities_);
  return std::move(catalog_);
}

bool Catalog::ForgetOne() {
  if (programs_.empty()) return false;
  programs_.erase(programs_.begin());
  return true;
}

std::shared_ptr<const Program> Catalog::Find(std::string_view name) const {
  const auto found = programs_.find(name);
  return found == programs_.end() ? nullptr : found->second;
}

void Catalog::NameTagged(CompiledRule& rule) const {
  for (const auto& [name, program] : programs_) {
    if (program->manifest == nullptr) continue;
    const auto& tags = program->manifest->message().tag();
    const bool tagged = std::any_of(
        rule.tag().begin(), rule.tag().end(), [&](const std::string& tag) {
          return std::find(tags.begin(), tags.end(), tag) != tags.end();
        });
    if (tagged) rule.add_program(name);
  }
}

Snapshot Catalog::Describe(absl::Span<const CompiledRule> rules) const {
  Snapshot snapshot;
  for (const auto& [name, program] : programs_) {
    CatalogEntry& entry = *snapshot.add_entry();
    entry = program->entry;
    const auto signers = signers_.find(name);
    if (signers == signers_.end()) continue;
    entry.mutable_description()->mutable_signed_by()->Add(
        signers->second.begin(), signers->second.end());
  }
  for (const CompiledRule& rule : rules) {
    CompiledRule& told = *snapshot.add_rule();
    told = rule;
    NameTagged(told);
  }
  return snapshot;
}

}  // namespace bpfgrant::daemon
