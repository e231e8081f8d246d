// diff: what differs between two catalogs, without the daemon.

#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/bpfgrantctl/command.h"
#include "client/bpfgrantctl/folders.h"
#include "client/bpfgrantctl/json.h"
#include "client/bpfgrantctl/output.h"
#include "daemon/loader/inspection/catalog_diff.h"

namespace bpfgrant::ctl {
namespace {

// As diff(1): whatever is wrong is no difference.
constexpr int kSame = 0, kDiffers = 1;

void PrintLine(Style style, const std::string& line) {
  std::printf("%s\n", Paint(style, Escape(line)).c_str());
}

void PrintChange(const v1::Change& change) {
  PrintLine(Style::kPlain, absl::StrCat("  ", change.what()));
  if (!change.before().empty()) {
    PrintLine(Style::kBad, absl::StrCat("  - ", change.before()));
  }
  if (!change.after().empty()) {
    PrintLine(Style::kGood, absl::StrCat("  + ", change.after()));
  }
}

void PrintDiff(const v1::CatalogDiff& diff) {
  for (const std::string& name : diff.removed()) {
    PrintLine(Style::kBad, absl::StrCat("removed: ", name));
  }
  for (const std::string& name : diff.added()) {
    PrintLine(Style::kGood, absl::StrCat("added: ", name));
  }
  for (const v1::ChangedProgram& program : diff.changed()) {
    PrintLine(Style::kHeading, absl::StrCat("changed: ", program.name()));
    for (const v1::Change& change : program.change()) PrintChange(change);
  }
}

bool IsEmpty(const v1::CatalogDiff& diff) {
  return diff.removed().empty() && diff.added().empty() &&
         diff.changed().empty();
}

absl::StatusOr<int> Diff(const Settings& settings,
                         daemon::DiffOptions options) {
  for (std::string* folder : {&options.before, &options.after}) {
    auto path = ExistingFolder("diff", *folder);
    if (!path.ok()) return path.status();
    *folder = *std::move(path);
  }
  options.deadline = settings.Timeout(options.deadline);
  const auto diff = daemon::CompareCatalogs(options);
  if (!diff.ok()) {
    // 1 would say that they differ.
    Report(settings, diff.status());
    return absl::IsDeadlineExceeded(diff.status()) ? kUnreachable : kInternal;
  }
  if (settings.json) {
    const absl::Status printed = PrintJson(*diff);
    if (!printed.ok()) return printed;
  } else {
    PrintDiff(*diff);
  }
  return IsEmpty(*diff) ? kSame : kDiffers;
}

}  // namespace

void AddDiff(CLI::App& app, Command& command) {
  struct Given {
    daemon::DiffOptions options;
    bool any_owner = false;
  };
  const auto given = std::make_shared<Given>();
  CLI::App* verb = AddVerb(
      app, command, "diff",
      "What differs between two catalogs; needs no daemon and no privilege",
      [given](const Settings& settings) {
        daemon::DiffOptions options = given->options;
        options.judge_files = !given->any_owner;
        return Diff(settings, std::move(options));
      });
  verb->add_option("OLD", given->options.before, "a folder of programs")
      ->required()
      ->check(CheckText);
  verb->add_option("NEW", given->options.after, "another")
      ->required()
      ->check(CheckText);
  verb->add_flag("--any-owner", given->any_owner,
                 "read files that others could write, too: for a build folder");
}

}  // namespace bpfgrant::ctl
