// metrics: the daemon in numbers, for a monitoring system.

#include <cstdio>
#include <string>

#include "bpfgrant/v1/metrics.pb.h"
#include "client/bpfgrantctl/command.h"
#include "client/bpfgrantctl/json.h"
#include "client/bpfgrantctl/output.h"

namespace bpfgrant::ctl {
namespace {

absl::StatusOr<int> Metrics(const Settings& settings) {
  auto connection = Connect(settings);
  if (!connection.ok()) return connection.status();
  const auto text = connection->Metrics();
  if (!text.ok()) return text.status();
  if (settings.json) {
    v1::MetricsReply reply;
    reply.set_text(*text);
    const absl::Status printed = PrintJson(reply);
    return printed.ok() ? absl::StatusOr<int>(kOk) : printed;
  }
  std::printf("%s", EscapeLines(*text).c_str());
  return kOk;
}

}  // namespace

void AddMetrics(CLI::App& app, Command& command) {
  AddVerb(app, command, "metrics",
          "The daemon in numbers, as OpenMetrics text; administrators get "
          "those of programs, too",
          Metrics);
}

}  // namespace bpfgrant::ctl
