// What all verbs of bpfgrantctl share: the global options, the exit codes, the
// connection, and how an error is told.
//
// A verb is declared by the Add function of its group and run by main once the
// whole command line was understood, so that nothing is done for a command line
// that is wrong.

#ifndef CLIENT_BPFGRANTCTL_COMMAND_H_
#define CLIENT_BPFGRANTCTL_COMMAND_H_

#include <chrono>
#include <functional>
#include <optional>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/bpfgrant/connection.h"

namespace bpfgrant::ctl {

// Scripts rely on them; the man page lists them.
enum ExitCode : int {
  kOk = 0,
  kRefused = 1,       // the answer is no
  kUsage = 2,         // the command line makes no sense
  kUnreachable = 3,   // no daemon, or no answer of it
  kInternal = 4,      // the daemon or this tool is broken
  kExecFailed = 125,  // exec: its program was not reached
};

// The global options.
struct Settings {
  std::string socket{kDefaultBrokerSocket};
  std::optional<double> timeout_seconds;
  std::string color = "auto";
  bool json = false;

  // As given, or what the verb thinks right.
  std::chrono::milliseconds Timeout(
      std::chrono::milliseconds otherwise = std::chrono::seconds(15)) const;
};

// Returns the exit code, or the status to be told by Report.
using Verb = std::function<absl::StatusOr<int>(const Settings&)>;

// What the command line asks for.
struct Command {
  Settings settings;
  Verb verb;
};

void AddAudit(CLI::App& app, Command& command);
void AddCatalogVerbs(CLI::App& app, Command& command);  // list describe header
void AddCheck(CLI::App& app, Command& command);
void AddCat(CLI::App& app, Command& command);
// keygen sign verify-signature
void AddSigning(CLI::App& app, Command& command);
void AddVerify(CLI::App& app, Command& command);
void AddInspect(CLI::App& app, Command& command);
void AddApprove(CLI::App& app, Command& command);
void AddDiff(CLI::App& app, Command& command);
void AddExplain(CLI::App& app, Command& command);
void AddSuggest(CLI::App& app, Command& command);
void AddGrantVerbs(CLI::App& app, Command& command);  // grants, watch
void AddTrace(CLI::App& app, Command& command);
void AddRevoke(CLI::App& app, Command& command);
void AddDaemonVerbs(CLI::App& app, Command& command);  // reload, status
void AddExec(CLI::App& app, Command& command);
void AddMetrics(CLI::App& app, Command& command);
void AddTop(CLI::App& app, Command& command);
void AddDoctor(CLI::App& app, Command& command);

// Adds a verb that main runs if it was named.
CLI::App* AddVerb(CLI::App& app, Command& command, const std::string& name,
                  const std::string& description, Verb verb);

absl::StatusOr<Connection> Connect(
    const Settings& settings,
    std::chrono::milliseconds timeout = std::chrono::seconds(15));

// Whether the daemon said no, as opposed to not being there.
bool IsRefusal(const absl::Status& status);

// For CLI11: what is wrong with an argument that goes to the daemon; empty if
// nothing is. The daemon ends a session over text that is not UTF-8.
std::string CheckText(const std::string& text);

// A status for a command line that parses but makes no sense.
absl::Status UsageError(const std::string& message);

// Writes "bpfgrantctl: message (reason)" to stderr, and with --json a refusal
// to stdout. Returns the exit code for it; `status` must not be OK.
int Report(const Settings& settings, const absl::Status& status);

// Writes "bpfgrantctl: message" to stderr, escaped.
void Complain(const std::string& message);

}  // namespace bpfgrant::ctl

#endif  // CLIENT_BPFGRANTCTL_COMMAND_H_
