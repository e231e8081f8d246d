#include "daemon/loader/inspection/catalog_diff.h"

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "daemon/loader/admission.h"
#include "daemon/loader/catalog_files.h"
#include "daemon/loader/confinement.h"
#include "daemon/loader/inspection/message_diff.h"

namespace bpfgrant::daemon {
namespace {

struct Entry {
  v1::Manifest manifest;  // empty: it does not parse
  // What admission tells of it, or of each of its variants, as far as it says
  // more than the manifest.
  std::vector<v1::DescribeReply> description;
};
using Entries = std::map<std::string, Entry>;

// Where the folder is makes no difference.
v1::DescribeReply WhatCounts(const v1::DescribeReply& description,
                             const std::string& folder) {
  v1::DescribeReply counts;
  counts.set_interface_hash(description.interface_hash());
  counts.set_instance_bytes(description.instance_bytes());
  *counts.mutable_handle() = description.handle();
  counts.set_refusal(
      absl::StrReplaceAll(description.refusal(), {{folder + "/", ""}}));
  return counts;
}

Entry Describe(const std::vector<std::unique_ptr<Program>>& programs,
               const std::string& folder) {
  Entry entry;
  if (programs[0]->manifest != nullptr) {
    entry.manifest = programs[0]->manifest->message();
    if (!entry.manifest.variant().empty()) {
      entry.manifest.clear_object();
      entry.manifest.clear_sha256();
    }
  }
  for (const auto& program : programs) {
    entry.description.push_back(
        WhatCounts(program->entry.description(), folder));
  }
  return entry;
}

absl::StatusOr<Entries> ReadEntries(const std::string& path,
                                    const Mitigations& mitigations) {
  const auto files = CatalogFiles::Find({path}, mitigations);
  if (!files.ok()) return files.status();
  Entries entries;
  for (const auto& [file, from] : files->manifests()) {
    const std::string name(StemOf(file));
    std::vector<std::unique_ptr<Program>> programs;
    const auto approval = files->Read(file);
    if (!approval.ok()) {
      programs.push_back(
          Unavailable(name, from.folder->PathOf(file), approval.status()));
    } else if (approval->masked()) {
      continue;
    } else {
      programs = InspectVariants(*from.folder, file, approval->manifest.view(),
                                 mitigations, approval->drop_ins);
    }
    entries[name] = Describe(programs, path);
  }
  return entries;
}

v1::ChangedProgram Compare(const std::string& name, const Entry& before,
                           const Entry& after) {
  v1::ChangedProgram changed;
  changed.set_name(name);
  for (v1::Change& change : DiffMessages(before.manifest, after.manifest)) {
    *changed.add_change() = std::move(change);
  }
  // That a variant was added or is gone, the manifests have told.
  for (size_t i = 0;
       i < before.description.size() && i < after.description.size(); ++i) {
    for (v1::Change& change :
         DiffMessages(before.description[i], after.description[i])) {
      *changed.add_change() = std::move(change);
    }
  }
  return changed;
}

v1::CatalogDiff Compare(const Entries& before, const Entries& after) {
  v1::CatalogDiff diff;
  for (const auto& [name, entry] : before) {
    const auto other = after.find(name);
    if (other == after.end()) {
      *diff.add_removed() = name;
    } else if (v1::ChangedProgram changed = Compare(name, entry, other->second);
               !changed.change().empty()) {
      *diff.add_changed() = std::move(changed);
    }
  }
  for (const auto& [name, entry] : after) {
    if (!before.contains(name)) *diff.add_added() = name;
  }
  return diff;
}

absl::StatusOr<std::string> Run(const DiffOptions& options) {
  Mitigations mitigations;
  mitigations.file_safety = options.judge_files;
  const auto before = ReadEntries(options.before, mitigations);
  if (!before.ok()) return before.status();
  const auto after = ReadEntries(options.after, mitigations);
  if (!after.ok()) return after.status();
  return Compare(*before, *after).SerializeAsString();
}

}  // namespace

absl::StatusOr<v1::CatalogDiff> CompareCatalogs(const DiffOptions& options) {
  const auto bytes =
      RunConfined([&] { return Run(options); }, options.deadline);
  if (!bytes.ok()) return bytes.status();
  v1::CatalogDiff diff;
  if (!diff.ParseFromString(*bytes)) {
    return absl::InternalError("the comparison's answer makes no sense");
  }
  return diff;
}

}  // namespace bpfgrant::daemon
