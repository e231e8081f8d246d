// cat: which files make a manifest or a part of the policy, without the daemon.

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bpfgrant/v1/cat.pb.h"
#include "client/bpfgrantctl/command.h"
#include "client/bpfgrantctl/folders.h"
#include "client/bpfgrantctl/json.h"
#include "client/bpfgrantctl/output.h"
#include "daemon/config_file.h"
#include "daemon/loader/catalog_cat.h"
#include "google/protobuf/text_format.h"

namespace bpfgrant::ctl {
namespace {

constexpr std::string_view kManifest = ".manifest", kPolicy = ".policy";

struct Given {
  std::vector<std::string> names, catalog, policy;
};

void PrintHeading(const std::string& text) {
  std::printf("%s\n",
              Paint(Style::kHeading, absl::StrCat("# ", Escape(text))).c_str());
}

void PrintFile(const v1::CatFile& file) {
  switch (file.state()) {
    case v1::CatFile::REPLACED:
      return PrintHeading(absl::StrCat(file.path(), " (replaced)"));
    case v1::CatFile::MASKS:
      return PrintHeading(absl::StrCat(file.path(), " (masks)"));
    default:
      break;
  }
  PrintHeading(file.path());
  std::printf("%s", EscapeLines(file.text()).c_str());
  if (!file.text().ends_with('\n')) std::printf("\n");
}

// Whether there is more to the result than the one file.
bool HasDropIns(const v1::CatEntry& entry) {
  int counting = 0;
  for (const v1::CatFile& file : entry.file()) {
    counting += file.state() == v1::CatFile::COUNTS;
  }
  return counting > 1;
}

void PrintEntry(const v1::CatEntry& entry) {
  for (const v1::CatFile& file : entry.file()) PrintFile(file);
  if (entry.has_result() && HasDropIns(entry)) {
    std::string text;
    google::protobuf::TextFormat::PrintToString(entry.result(), &text);
    PrintHeading(absl::StrCat(entry.name(), ": the result"));
    std::printf("%s", EscapeLines(text).c_str());
  }
  if (!entry.refusal().empty()) {
    Complain(absl::StrCat(entry.name(), " does not count: ", entry.refusal()));
  }
}

absl::StatusOr<v1::CatEntry> Read(const std::string& name,
                                  const std::vector<std::string>& catalog,
                                  const std::vector<std::string>& policy) {
  if (name.ends_with(kPolicy)) return daemon::CatPolicy(name, policy);
  const bool whole = name.ends_with(kManifest);
  return daemon::CatManifest(
      whole ? name : absl::StrCat(name, std::string(kManifest)), catalog);
}

absl::StatusOr<int> Cat(const Settings& settings, const Given& given) {
  const auto config = DaemonsConfig();
  if (!config.ok()) return config.status();
  const auto catalog = Absolute(daemon::CatalogFolders(given.catalog, *config));
  const auto policy = Absolute(daemon::PolicyFolders(given.policy, *config));
  v1::CatReply reply;
  bool all_count = true;
  for (const std::string& name : given.names) {
    auto entry = Read(name, catalog, policy);
    if (!entry.ok()) return entry.status();
    all_count = all_count && entry->refusal().empty();
    for (v1::CatFile& file : *entry->mutable_file()) {
      // JSON has room for text only.
      if (!IsUtf8(file.text())) file.set_text(EscapeLines(file.text()));
    }
    *reply.add_entry() = *std::move(entry);
  }
  if (settings.json) {
    if (auto printed = PrintJson(reply); !printed.ok()) return printed;
  } else {
    for (const v1::CatEntry& entry : reply.entry()) PrintEntry(entry);
  }
  return all_count ? kOk : kRefused;
}

}  // namespace

void AddCat(CLI::App& app, Command& command) {
  const auto given = std::make_shared<Given>();
  CLI::App* verb = AddVerb(
      app, command, "cat",
      "The files that make a program's manifest, or a file of the policy, and "
      "what comes of them; needs no daemon",
      [given](const Settings& settings) { return Cat(settings, *given); });
  verb->add_option("NAME", given->names,
                   "of a program, or of a file that ends in .policy")
      ->required()
      ->check(CheckText);
  verb->add_option("--catalog", given->catalog,
                   "a folder of programs; may be given more than once, later "
                   "ones override (default: the daemon's)")
      ->type_name("DIR")
      ->allow_extra_args(false);
  verb->add_option("--policy", given->policy, "a folder of policies; likewise")
      ->type_name("DIR")
      ->allow_extra_args(false);
}

}  // namespace bpfgrant::ctl
