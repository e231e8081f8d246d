#include "daemon/options.h"

#include <grp.h>
#include <pwd.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "daemon/config_file.h"
#include "proto/wire/limits.h"

namespace bpfgrant::daemon {
namespace {

constexpr char kDescription[] =
    "Hands approved BPF programs to processes without privilege.\n\n"
    "Runs in the foreground, as root; gives up what it does not need. SIGHUP\n"
    "reloads catalog and policy, SIGTERM closes every gate and ends it.";

absl::StatusOr<gid_t> ParseGroup(const std::string& text) {
  uint32_t number = 0;
  if (absl::SimpleAtoi(text, &number)) return number;
  const group* found = getgrnam(text.c_str());
  if (found == nullptr) {
    return absl::NotFoundError(absl::StrCat("no group '", text, "'"));
  }
  return found->gr_gid;
}

void FillLimits(v1::Limits& limits) {
  if (limits.sessions() == 0) limits.set_sessions(kDefaultSessions);
  if (limits.sessions_per_user() == 0) {
    limits.set_sessions_per_user(kDefaultSessionsPerUser);
  }
  if (limits.handshake_ms() == 0) {
    limits.set_handshake_ms(kDefaultHandshakeMs);
  }
  if (limits.pool_bytes() == 0) limits.set_pool_bytes(kDefaultPoolBytes);
  if (limits.polkit_ms() == 0) {
    limits.set_polkit_ms(static_cast<uint32_t>(kPolkitDeadline.count()));
  }
  if (limits.grants_per_session() == 0) {
    limits.set_grants_per_session(kDefaultGrantsPerSession);
  }
}

// What the command line said, before the configuration is looked at.
struct Given {
  std::string config = kDefaultConfigFile;
  bool config_named = false;
  std::string runtime_directory, user, administrator_group;
  std::string identify = "auto";
  std::vector<std::string> catalog, policy, keys, admission;
  bool verbose = false;
};

absl::StatusOr<Options> Combine(const Given& given) {
  v1::Config config;
  if (absl::Status status =
          ReadConfigFile(given.config, given.config_named, config);
      !status.ok()) {
    return status;
  }
  const auto first = [](const std::string& a, const std::string& b,
                        const char* c) {
    return !a.empty() ? a : !b.empty() ? b : std::string(c);
  };
  Options options;
  options.runtime_directory = first(
      given.runtime_directory, config.runtime_directory(), "/run/bpfgrant");
  options.catalog_directories = CatalogFolders(given.catalog, config);
  options.policy_directories = PolicyFolders(given.policy, config);
  options.key_directories = KeyFolders(given.keys, config);
  options.admission_files = AdmissionFiles(given.admission, config);
  const std::string user = first(given.user, config.broker_user(), "bpfgrant");
  if (absl::Status status =
          ParseUser(user, options.broker_uid, options.broker_gid);
      !status.ok()) {
    return status;
  }
  const std::string group =
      first(given.administrator_group, config.administrator_group(), "");
  if (!group.empty()) {
    const absl::StatusOr<gid_t> gid = ParseGroup(group);
    if (!gid.ok()) return gid.status();
    options.administrator_group = *gid;
  }
  options.limits = config.limits();
  FillLimits(options.limits);
  options.identify_by_nonce = given.identify == "nonce";
  options.verbose = given.verbose;
  return options;
}

}  // namespace

absl::Status ParseUser(const std::string& text, uid_t& uid, gid_t& gid) {
  const std::vector<std::string> parts = absl::StrSplit(text, ':');
  uint32_t number = 0;
  if (absl::SimpleAtoi(parts[0], &number)) {
    uid = gid = number;
    uint32_t group = 0;
    if (parts.size() == 2 && absl::SimpleAtoi(parts[1], &group)) {
      gid = group;
    } else if (parts.size() != 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", text, "' is not NAME, UID or UID:GID"));
    }
  } else {
    const passwd* found = getpwnam(text.c_str());
    if (found == nullptr) {
      return absl::NotFoundError(
          absl::StrCat("no user '", text,
                       "' for the broker: create it (systemd-sysusers), "
                       "or name another with --user"));
    }
    uid = found->pw_uid;
    gid = found->pw_gid;
  }
  if (uid == 0 || gid == 0) {
    return absl::InvalidArgumentError("the broker must not run as root");
  }
  // To setresuid(2) that means "as it is".
  if (uid == static_cast<uid_t>(-1) || gid == static_cast<gid_t>(-1)) {
    return absl::InvalidArgumentError("4294967295 is nobody's number");
  }
  return absl::OkStatus();
}

std::variant<Options, int> ReadOptions(int argc, char** argv) {
  Given given;
  CLI::App app(kDescription, "bpfgrantd");
  app.set_version_flag("--version",
                       absl::StrCat("bpfgrantd ", BPFGRANT_VERSION));
  CLI::Option* config =
      app.add_option("--config", given.config, "configuration, text format")
          ->capture_default_str();
  app.add_option("--runtime-dir", given.runtime_directory,
                 "where the sockets are (default /run/bpfgrant)");
  app.add_option("--catalog", given.catalog,
                 "a directory of programs; may be given more than once, later "
                 "ones override by file name")
      ->allow_extra_args(false);
  app.add_option("--policy", given.policy,
                 "a directory of *.policy files; likewise")
      ->allow_extra_args(false);
  app.add_option("--keys", given.keys,
                 "a directory of *.pub keys, whose signatures count; likewise")
      ->allow_extra_args(false);
  app.add_option("--admission", given.admission,
                 "a file of limits that bind every program; may be given more "
                 "than once, later ones override field by field")
      ->allow_extra_args(false);
  app.add_option("--user", given.user,
                 "who the broker runs as: NAME, UID or UID:GID (default "
                 "bpfgrant)");
  app.add_option("--admin-group", given.administrator_group,
                 "whose members may do what root may (default: nobody's)");
  app.add_option("--identify", given.identify,
                 "auto: by SO_PEERPIDFD where the kernel has it; nonce: as on "
                 "kernels before 6.5")
      ->check(CLI::IsMember({"auto", "nonce"}))
      ->capture_default_str();
  app.add_flag("--verbose", given.verbose, "log each session's end, too");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? 0 : 2;
  }
  given.config_named = config->count() > 0;
  const absl::StatusOr<Options> options = Combine(given);
  if (!options.ok()) {
    std::fprintf(stderr, "bpfgrantd: %s\n",
                 std::string(options.status().message()).c_str());
    return 2;
  }
  return *options;
}

}  // namespace bpfgrant::daemon
