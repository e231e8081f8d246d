// bpfgrantctl: what people and scripts ask bpfgrantd, over its broker socket.

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "client/bpfgrantctl/command.h"
#include "client/bpfgrantctl/output.h"

namespace bpfgrant::ctl {
namespace {

constexpr char kFooter[] =
    "Exit codes:\n"
    "  0  done; the answer is yes\n"
    "  1  refused or denied: the answer is no (doctor: something is wrong;\n"
    "     check, verify: a program has no variant that fits, or the policy is\n"
    "     refused; inspect, approve: it is no BPF object, or there can be no\n"
    "     draft; diff: they differ;\n"
    "     cat: one does not count; verify-signature: no signature counts)\n"
    "  2  wrong usage\n"
    "  3  the daemon cannot be reached, or did not answer in time\n"
    "  4  an internal or protocol error\n"
    "exec: 125 for all of these, 126 if COMMAND cannot be executed, 127 if it\n"
    "is not found, else its own";

void AddGlobalOptions(CLI::App& app, Settings& settings) {
  app.add_option("--socket", settings.socket,
                 "the daemon's broker socket (default: "
                 "/run/bpfgrant/broker.sock)")
      ->type_name("PATH")
      ->check([](const std::string& path) {
        return path.empty() ? std::string("a path is needed") : std::string();
      })
      ->envname("BPFGRANT_SOCKET");
  app.add_flag("--json", settings.json,
               "print the reply as JSON; a refusal as {\"refusal\": {...}}");
  app.add_option("--color", settings.color,
                 "auto (a terminal, unless NO_COLOR is set), always or never")
      ->type_name("WHEN")
      ->check(CLI::IsMember({"auto", "always", "never"}));
  app.add_option("--timeout", settings.timeout_seconds,
                 "how long to wait for each answer (default: 15; for reload, "
                 "check, verify and diff 125)")
      ->type_name("SECONDS")
      ->check([](const std::string& text) {
        double seconds = 0;
        return CLI::detail::lexical_cast(text, seconds) && seconds >= 0.001 &&
                       seconds <= 1e6
                   ? std::string()
                   : "'" + text + "' is not a number from 0.001 to 1000000";
      });
}

// Tells what CLI11 found wrong with the command line.
int ReportUsage(const CLI::App& app, const CLI::ParseError& error) {
  std::string message = error.what();
  const std::vector<std::string> strangers = app.remaining(true);
  if (error.get_name() == "ExtrasError" && !strangers.empty()) {
    message = absl::StrCat(
        app.get_subcommands().empty() ? "no verb '" : "what is '",
        strangers.front(), app.get_subcommands().empty() ? "'" : "'?");
  }
  Complain(absl::StrCat(message, "; see bpfgrantctl --help (usage)"));
  // 2 may be the program's own.
  return app.got_subcommand("exec") ? kExecFailed : kUsage;
}

int RunCommand(const Command& command) {
  ChooseColor(command.settings.color);
  const absl::StatusOr<int> done = command.verb(command.settings);
  const int exit_code =
      done.ok() ? *done : Report(command.settings, done.status());
  // A full disk must not look like an answer.
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    Complain(
        absl::StrCat("standard output: ", std::strerror(errno), " (internal)"));
    return kInternal;
  }
  return exit_code;
}

int Main(int argc, char** argv) {
  Command command;
  CLI::App app(
      "Shows and controls what bpfgrantd hands out: BPF programs that the "
      "administrator approved, for processes without privilege.",
      "bpfgrantctl");
  app.set_version_flag("--version",
                       absl::StrCat("bpfgrantctl ", BPFGRANT_VERSION));
  app.footer(kFooter);
  // Verbs inherit both: global options may follow the verb.
  app.fallthrough();
  app.get_formatter()->column_width(28);
  AddGlobalOptions(app, command.settings);
  AddCatalogVerbs(app, command);
  AddCheck(app, command);
  AddCat(app, command);
  AddSigning(app, command);
  AddVerify(app, command);
  AddInspect(app, command);
  AddApprove(app, command);
  AddDiff(app, command);
  AddExplain(app, command);
  AddSuggest(app, command);
  AddGrantVerbs(app, command);
  AddTrace(app, command);
  AddRevoke(app, command);
  AddDaemonVerbs(app, command);
  AddAudit(app, command);
  AddExec(app, command);
  AddMetrics(app, command);
  AddTop(app, command);
  AddDoctor(app, command);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    // --help and --version are told this way, too.
    if (error.get_exit_code() == 0) return app.exit(error);
    return ReportUsage(app, error);
  }
  if (!command.verb) {
    Complain("name a verb; see bpfgrantctl --help (usage)");
    return kUsage;
  }
  return RunCommand(command);
}

}  // namespace
}  // namespace bpfgrant::ctl

int main(int argc, char** argv) { return bpfgrant::ctl::Main(argc, argv); }
