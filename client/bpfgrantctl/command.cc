#include "client/bpfgrantctl/command.h"

#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/bpfgrantctl/json.h"
#include "client/bpfgrantctl/output.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::ctl {
namespace {

// Refusals that no correct tool meets from a correct daemon of its release.
bool IsProtocolError(v1::Reason reason) {
  return reason == v1::REASON_INTERNAL || reason == v1::REASON_MALFORMED ||
         reason == v1::REASON_OUT_OF_ORDER ||
         reason == v1::REASON_PROTOCOL_VERSION;
}

struct Failure {
  int exit_code;
  std::string reason;
};

// What the library itself says, not the daemon: connection.h has the codes.
Failure Classify(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    // Connect says so of a path that is closed to the caller, or that another
    // user than root serves: either way there is no daemon for him.
    case absl::StatusCode::kPermissionDenied:
      return {kUnreachable, "unreachable"};
    case absl::StatusCode::kDeadlineExceeded:
      return {kUnreachable, "timed-out"};
    case absl::StatusCode::kInvalidArgument:
      return {kUsage, "usage"};
    default:
      return {kInternal, "internal"};
  }
}

}  // namespace

std::chrono::milliseconds Settings::Timeout(
    std::chrono::milliseconds otherwise) const {
  if (!timeout_seconds.has_value()) return otherwise;
  return std::chrono::ceil<std::chrono::milliseconds>(
      std::chrono::duration<double>(*timeout_seconds));
}

CLI::App* AddVerb(CLI::App& app, Command& command, const std::string& name,
                  const std::string& description, Verb verb) {
  CLI::App* added = app.add_subcommand(name, description);
  added->callback([&command, verb = std::move(verb)] { command.verb = verb; });
  return added;
}

absl::StatusOr<Connection> Connect(const Settings& settings,
                                   std::chrono::milliseconds timeout) {
  Connection::Options options;
  options.path = settings.socket;
  options.timeout = settings.Timeout(timeout);
  return Connection::Connect(options);
}

bool IsRefusal(const absl::Status& status) {
  // A refusal is the only payload that a status of the library's carries.
  bool found = false;
  status.ForEachPayload(
      [&found](absl::string_view, const absl::Cord&) { found = true; });
  return found;
}

std::string CheckText(const std::string& text) {
  return IsUtf8(text) ? "" : absl::StrCat("'", text, "' is not UTF-8");
}

absl::Status UsageError(const std::string& message) {
  return absl::InvalidArgumentError(message);
}

int Report(const Settings& settings, const absl::Status& status) {
  if (!IsRefusal(status)) {
    const Failure failure = Classify(status);
    Complain(
        absl::StrCat(std::string(status.message()), " (", failure.reason, ")"));
    return failure.exit_code;
  }
  const v1::Refusal refusal = RefusalOf(status);
  if (settings.json) PrintRefusal(refusal);
  Complain(
      absl::StrCat(refusal.message(), " (", ReasonName(refusal.reason()), ")"));
  return IsProtocolError(refusal.reason()) ? kInternal : kRefused;
}

void Complain(const std::string& message) {
  // What was printed before stands before it, too, where both go to one place.
  std::fflush(stdout);
  std::fprintf(stderr, "bpfgrantctl: %s\n", Escape(message).c_str());
}

}  // namespace bpfgrant::ctl
