// approve: the draft of a manifest for a BPF object, without the daemon.

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "client/bpfgrantctl/command.h"
#include "client/bpfgrantctl/folders.h"
#include "client/bpfgrantctl/json.h"
#include "client/bpfgrantctl/output.h"
#include "daemon/loader/catalog_files.h"
#include "daemon/loader/inspection/draft.h"
#include "daemon/loader/inspection/inspection.h"

namespace bpfgrant::ctl {
namespace {

struct Given {
  std::string file;
  std::string name;
  std::string function;
  std::vector<std::string> catalog;
};

using Known = std::unique_ptr<daemon::Manifest>;

// The manifest of that name in the catalog; null: there is none. Whoever could
// write it, it is compared and not trusted.
absl::StatusOr<Known> FindKnown(const std::vector<std::string>& folders,
                                const std::string& name) {
  daemon::Mitigations unjudged;
  unjudged.file_safety = false;
  const auto files = daemon::CatalogFiles::Find(folders, unjudged);
  if (!files.ok()) return files.status();
  const std::string file =
      absl::StrCat(name, std::string(daemon::kManifestSuffix));
  const auto entry = files->manifests().find(file);
  if (entry == files->manifests().end()) return nullptr;
  const auto approval = files->Read(file);
  if (!approval.ok()) return approval.status();
  if (approval->masked()) return nullptr;
  return daemon::Manifest::Parse(entry->second.folder->PathOf(file), name,
                                 approval->manifest.view());
}

// What is for people goes to standard error: the draft can be redirected.
void Tell(const v1::Draft& draft) {
  if (!draft.known().empty()) {
    std::fprintf(
        stderr, "%s\n%s",
        Escape(absl::StrCat(draft.known(), draft.diff().empty()
                                               ? " approves it already."
                                               : " is known; what changes:"))
            .c_str(),
        EscapeLines(draft.diff()).c_str());
  }
  for (const std::string& decision : draft.decision()) {
    std::fprintf(
        stderr, "%s\n",
        Escape(absl::StrCat("To be decided: ", draft.file(), ":", decision))
            .c_str());
  }
}

absl::StatusOr<int> Approve(const Settings& settings, const Given& given) {
  const auto folders = CatalogOrDaemons(given.catalog);
  if (!folders.ok()) return folders.status();
  const auto inspection = daemon::InspectFile(given.file, settings.Timeout());
  if (!inspection.ok()) return inspection.status();
  daemon::DraftRequest request;
  request.object = std::filesystem::path(given.file).filename();
  request.function = given.function;
  request.name = given.name;
  if (request.name.empty()) {
    const std::string stem = std::filesystem::path(given.file).stem();
    request.name = std::string(absl::StripSuffix(stem, ".bpf"));
  }
  const auto known = FindKnown(*folders, request.name);
  if (!known.ok()) return known.status();
  request.known = known->get();
  const auto draft = daemon::WriteDraft(*inspection, request);
  if (!draft.ok()) return draft.status();
  if (settings.json) {
    const absl::Status printed = PrintJson(*draft);
    if (!printed.ok()) return printed;
    return kOk;
  }
  Tell(*draft);
  std::printf("%s", EscapeLines(draft->text()).c_str());
  return kOk;
}

}  // namespace

void AddApprove(CLI::App& app, Command& command) {
  const auto given = std::make_shared<Given>();
  CLI::App* verb = AddVerb(
      app, command, "approve",
      "Write the draft of a manifest for a BPF object; needs no daemon and no "
      "privilege",
      [given](const Settings& settings) { return Approve(settings, *given); });
  verb->add_option("FILE", given->file, "the object")
      ->required()
      ->check(CheckText);
  verb->add_option("--name", given->name,
                   "of the program to be (default: the file's, up to .bpf.o)")
      ->check(CheckText);
  verb->add_option("--function", given->function,
                   "which of the object's programs (default: the only one)")
      ->check(CheckText);
  verb->add_option("--catalog", given->catalog,
                   "where to look for a manifest of that name; may be given "
                   "more than once (default: the daemon's)")
      ->type_name("DIR")
      ->allow_extra_args(false);
}

}  // namespace bpfgrant::ctl
