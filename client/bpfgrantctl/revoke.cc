// revoke: closes the gates of what was named.

#include <pwd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/bpfgrantctl/command.h"
#include "client/bpfgrantctl/json.h"
#include "client/bpfgrantctl/output.h"

namespace bpfgrant::ctl {
namespace {

constexpr size_t kDigestDigits = 64;
constexpr size_t kShortDigestDigits = 12;  // what tables show
constexpr char kSelectors[] =
    "--grant, --program, --digest, --uid, --user, --unit or --all";

struct Selection {
  std::optional<uint64_t> grant;
  std::optional<uint32_t> uid;
  std::optional<std::string> program, digest, user, unit;
  bool all = false;

  int count() const {
    return grant.has_value() + uid.has_value() + program.has_value() +
           digest.has_value() + user.has_value() + unit.has_value() + all;
  }
};

absl::Status SetDigest(const std::string& given, v1::RevokeRequest& request) {
  const std::string digest = absl::AsciiStrToLower(given);
  if (digest.size() < kShortDigestDigits || digest.size() > kDigestDigits ||
      !std::all_of(digest.begin(), digest.end(), absl::ascii_isxdigit)) {
    return UsageError(absl::StrCat("'", given,
                                   "' is not a SHA-256 digest: 64 "
                                   "hexadecimal digits, or the first ",
                                   kShortDigestDigits, " or more of them"));
  }
  request.set_digest(digest);
  return absl::OkStatus();
}

absl::StatusOr<v1::RevokeRequest> MakeRequest(const Selection& selection) {
  if (selection.count() == 0) {
    return UsageError(absl::StrCat("say what to revoke: ", kSelectors));
  }
  if (selection.count() > 1) {
    return UsageError(absl::StrCat("say one thing to revoke: ", kSelectors));
  }
  if (selection.program == "" || selection.unit == "" || selection.user == "") {
    return UsageError("what to revoke has an empty name");
  }
  v1::RevokeRequest request;
  if (selection.grant.has_value()) request.set_grant(*selection.grant);
  if (selection.program.has_value()) request.set_program(*selection.program);
  if (selection.uid.has_value()) request.set_uid(*selection.uid);
  if (selection.unit.has_value()) request.set_unit(*selection.unit);
  if (selection.all) request.set_all(true);
  if (selection.user.has_value()) {
    const passwd* found = getpwnam(selection.user->c_str());
    if (found == nullptr) {
      return UsageError(
          absl::StrCat("no user '", *selection.user, "' on this machine"));
    }
    request.set_uid(found->pw_uid);
  }
  if (selection.digest.has_value()) {
    absl::Status status = SetDigest(*selection.digest, request);
    if (!status.ok()) return status;
  }
  return request;
}

// The daemon wants all digits; tables show the first. With none that begins so
// the daemon will say that it revoked nothing, which is true.
absl::Status CompleteDigest(Connection& connection,
                            v1::RevokeRequest& request) {
  if (request.digest().size() == kDigestDigits) return absl::OkStatus();
  const auto grants = connection.Grants();
  if (!grants.ok()) return grants.status();
  std::set<std::string> found;
  for (const v1::GrantInfo& grant : grants->grant()) {
    if (grant.digest().starts_with(request.digest())) {
      found.insert(grant.digest());
    }
  }
  if (found.size() > 1) {
    return UsageError(
        absl::StrCat("several digests begin so: ", absl::StrJoin(found, ", ")));
  }
  if (found.size() == 1) request.set_digest(*found.begin());
  return absl::OkStatus();
}

absl::StatusOr<int> Revoke(const Settings& settings,
                           const Selection& selection) {
  auto request = MakeRequest(selection);
  if (!request.ok()) return request.status();
  auto connection = Connect(settings);
  if (!connection.ok()) return connection.status();
  if (request->what_case() == v1::RevokeRequest::kDigest) {
    const absl::Status status = CompleteDigest(*connection, *request);
    if (!status.ok()) return status;
  }
  const auto reply = connection->Revoke(*request);
  if (!reply.ok()) return reply.status();
  if (settings.json) {
    const absl::Status printed = PrintJson(*reply);
    return printed.ok() ? absl::StatusOr<int>(kOk) : printed;
  }
  std::printf("revoked %s%s\n", Count(reply->revoked(), "grant").c_str(),
              reply->running()
                  ? "; a run that began before may still be under way (running)"
              : reply->revoked() > 0 ? "; no run is under way any more"
                                     : "");
  return kOk;
}

}  // namespace

void AddRevoke(CLI::App& app, Command& command) {
  const auto selection = std::make_shared<Selection>();
  CLI::App* verb = AddVerb(
      app, command, "revoke",
      "Ends grants and closes their gates; for administrators. Takes one of "
      "its options",
      [selection](const Settings& settings) {
        return Revoke(settings, *selection);
      });
  verb->add_option("--grant", selection->grant, "one grant")->type_name("ID");
  verb->add_option("--program", selection->program, "all of a program")
      ->type_name("NAME")
      ->check(CheckText);
  verb->add_option("--digest", selection->digest,
                   "all of programs with that digest, or the only one that "
                   "begins so")
      ->type_name("SHA");
  verb->add_option("--uid", selection->uid, "all of a user")->type_name("N");
  verb->add_option("--user", selection->user, "likewise, by name")
      ->type_name("USER");
  verb->add_option("--unit", selection->unit, "all of a systemd unit")
      ->type_name("UNIT")
      ->check(CheckText);
  verb->add_flag("--all", selection->all, "all there are");
}

}  // namespace bpfgrant::ctl
