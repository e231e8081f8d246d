// verify: what a reload would say of a folder, without the daemon.

#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/bpfgrantctl/check.h"
#include "client/bpfgrantctl/command.h"
#include "client/bpfgrantctl/folders.h"
#include "client/bpfgrantctl/json.h"
#include "client/bpfgrantctl/output.h"
#include "daemon/loader/catalog_check.h"

namespace bpfgrant::ctl {
namespace {

void PrintPolicy(const v1::CheckedPolicy& policy) {
  if (policy.complaint().empty()) {
    std::printf("The policy has %s.\n", Count(policy.rules(), "rule").c_str());
    return;
  }
  std::printf("A reload would refuse the policy:\n");
  for (const v1::Complaint& complaint : policy.complaint()) {
    std::printf("%s\n", Paint(Style::kBad, Escape(complaint.text())).c_str());
  }
}

struct Given {
  std::string folder;
  std::vector<std::string> keys;
  std::vector<std::string> admission;
  bool any_owner = false;
};

absl::StatusOr<daemon::CheckOptions> OptionsOf(const Given& given) {
  auto folder = ExistingFolder("verify", given.folder);
  if (!folder.ok()) return folder.status();
  auto known = CatalogOrDaemons({});
  if (!known.ok()) return known.status();
  auto limits = AdmissionOrDaemons(given.admission);
  if (!limits.ok()) return limits.status();
  auto keys = KeysOrDaemons(given.keys);
  if (!keys.ok()) return keys.status();
  daemon::CheckOptions options;
  options.judge_files = !given.any_owner;
  options.folders = {*folder};
  options.policy = true;
  options.key_folders = *std::move(keys);
  options.known_folders = *std::move(known);
  options.known_folders.push_back(*std::move(folder));
  options.admission_files = *std::move(limits);
  return options;
}

absl::StatusOr<int> Verify(const Settings& settings, const Given& given) {
  auto options = OptionsOf(given);
  if (!options.ok()) return options.status();
  options->deadline = settings.Timeout(options->deadline);
  const auto reply = daemon::CheckCatalog(*options);
  if (!reply.ok()) return reply.status();
  if (settings.json) {
    const absl::Status printed = PrintJson(*reply);
    if (!printed.ok()) return printed;
  } else {
    PrintCheck(*reply);
    PrintPolicy(reply->policy());
  }
  const bool all_usable =
      CountUsable(*reply) == static_cast<uint64_t>(reply->program_size());
  return all_usable && reply->policy().complaint().empty() ? kOk : kRefused;
}

}  // namespace

void AddVerify(CLI::App& app, Command& command) {
  const auto given = std::make_shared<Given>();
  CLI::App* verb = AddVerb(
      app, command, "verify",
      "What a reload would say of a folder of programs and policy, on this "
      "kernel; changes nothing, needs no daemon",
      [given](const Settings& settings) { return Verify(settings, *given); });
  verb->add_option("DIR", given->folder, "manifests, objects and *.policy")
      ->required()
      ->check(CheckText);
  verb->add_option("--keys", given->keys,
                   "a directory of keys whose signatures count; may be given "
                   "more than once (default: the daemon's)")
      ->type_name("DIR")
      ->allow_extra_args(false);
  verb->add_option("--admission", given->admission,
                   "a file of admission limits; likewise")
      ->type_name("FILE")
      ->allow_extra_args(false);
  verb->add_flag("--any-owner", given->any_owner,
                 "read files that others could write, too: for a build folder");
}

}  // namespace bpfgrant::ctl
