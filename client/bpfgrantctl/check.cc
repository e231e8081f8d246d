// check: what a kernel takes of a catalog, without the daemon.

#include "client/bpfgrantctl/check.h"

#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/bpfgrantctl/command.h"
#include "client/bpfgrantctl/folders.h"
#include "client/bpfgrantctl/json.h"
#include "client/bpfgrantctl/output.h"
#include "daemon/loader/catalog_check.h"

namespace bpfgrant::ctl {
namespace {

Cell AnswerOf(const v1::CheckedVariant& variant, bool loaded) {
  if (variant.chosen()) {
    return {loaded ? "chosen" : "would be chosen", Style::kGood};
  }
  if (variant.fits()) return {loaded ? "fits" : "nothing against it"};
  return {loaded ? "refused" : "would be refused", Style::kDoubtful};
}

void PrintPrograms(const v1::CheckReply& reply) {
  Table table({"PROGRAM", "VARIANT", "ANSWER", "WHY"});
  for (const v1::CheckedProgram& program : reply.program()) {
    for (const v1::CheckedVariant& variant : program.variant()) {
      table.Add({program.name(), variant.name(),
                 AnswerOf(variant, reply.loaded()),
                 variant.fits() ? absl::StrJoin(variant.open(), "; ")
                                : variant.refusal()});
    }
    if (program.variant().empty()) {
      table.Add({program.name(), "", Cell("refused", Style::kBad),
                 program.refusal()});
    }
  }
  table.Print();
}

}  // namespace

uint64_t CountUsable(const v1::CheckReply& reply) {
  uint64_t usable = 0;
  for (const v1::CheckedProgram& program : reply.program()) {
    usable += program.usable() ? 1 : 0;
  }
  return usable;
}

void PrintCheck(const v1::CheckReply& reply) {
  std::printf("%s\n\n",
              Escape(absl::StrCat("Kernel: ", reply.kernel(),
                                  reply.loaded() ? "; each was loaded on trial"
                                                 : "; none was loaded"))
                  .c_str());
  if (reply.program().empty()) {
    std::printf("There are no programs.\n");
    return;
  }
  PrintPrograms(reply);
  const uint64_t usable = CountUsable(reply);
  const auto all = static_cast<uint64_t>(reply.program_size());
  std::printf(
      "\n%s\n",
      Paint(usable == all ? Style::kGood : Style::kBad,
            absl::StrCat(usable, " of ", Count(all, "program"),
                         reply.loaded() ? " can" : " could", " be used."))
          .c_str());
  if (!reply.unchecked().empty()) {
    std::printf("Not looked at: %s.\n", Escape(reply.unchecked()).c_str());
  }
}

namespace {

absl::StatusOr<int> Check(const Settings& settings,
                          const std::vector<std::string>& catalog,
                          daemon::CheckOptions options) {
  auto folders = CatalogOrDaemons(catalog);
  if (!folders.ok()) return folders.status();
  options.folders = *std::move(folders);
  auto limits = AdmissionOrDaemons(options.admission_files);
  if (!limits.ok()) return limits.status();
  options.admission_files = *std::move(limits);
  options.deadline = settings.Timeout(options.deadline);
  const auto reply = daemon::CheckCatalog(options);
  if (!reply.ok()) return reply.status();
  if (settings.json) {
    const absl::Status printed = PrintJson(*reply);
    if (!printed.ok()) return printed;
  } else {
    PrintCheck(*reply);
  }
  return CountUsable(*reply) == static_cast<uint64_t>(reply->program_size())
             ? kOk
             : kRefused;
}

}  // namespace

void AddCheck(CLI::App& app, Command& command) {
  struct Given {
    std::vector<std::string> catalog;
    daemon::CheckOptions options;
  };
  const auto given = std::make_shared<Given>();
  CLI::App* verb = AddVerb(
      app, command, "check",
      "What this kernel takes of the catalog, or another by its BTF; needs no "
      "daemon",
      [given](const Settings& settings) {
        return Check(settings, given->catalog, given->options);
      });
  verb->add_option("PROGRAM", given->options.programs, "these only")
      ->check(CheckText);
  verb->add_option("--catalog", given->catalog,
                   "a folder of programs; may be given more than once, later "
                   "ones override (default: the daemon's)")
      ->type_name("DIR")
      ->allow_extra_args(false);
  verb->add_option("--admission", given->options.admission_files,
                   "a file of admission limits; likewise (default: the "
                   "daemon's)")
      ->type_name("FILE")
      ->allow_extra_args(false);
  verb->add_option("--btf", given->options.btf_file,
                   "judge by this BTF, or vmlinux with BTF, of another kernel; "
                   "nothing is loaded")
      ->type_name("FILE")
      ->check([](const std::string& path) {
        return path.empty() ? std::string("a file is needed") : std::string();
      });
}

}  // namespace bpfgrant::ctl
