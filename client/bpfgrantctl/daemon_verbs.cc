// The verbs about the daemon itself: reload, status.

#include <chrono>
#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/bpfgrantctl/command.h"
#include "client/bpfgrantctl/json.h"
#include "client/bpfgrantctl/output.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant::ctl {
namespace {

// What goes on although the policy would not give it any more.
void PrintNotAllowed(const v1::ReloadReply& reply) {
  if (reply.not_allowed().empty()) return;
  std::printf("\nLive grants that the policy would not give any more:\n");
  Table table({"GRANT", "PROGRAM", "UID", "PID", "UNIT", "RULE"});
  for (const v1::GrantInfo& grant : reply.not_allowed()) {
    table.Add({absl::StrCat(grant.grant()), grant.program(),
               absl::StrCat(grant.uid()), absl::StrCat(grant.pid()),
               grant.unit(), grant.rule()});
  }
  table.Print();
  std::printf("They go on; bpfgrantctl reload --enforce ends them.\n");
}

absl::StatusOr<int> Reload(const Settings& settings, bool enforce) {
  // The daemon may take its time with the verifier, and says so itself when
  // that was too long.
  auto connection =
      Connect(settings, kReloadDeadline + std::chrono::seconds(5));
  if (!connection.ok()) return connection.status();
  const auto reply = connection->Reload(enforce);
  if (!reply.ok()) return reply.status();
  if (settings.json) {
    const absl::Status printed = PrintJson(*reply);
    return printed.ok() ? absl::StatusOr<int>(kOk) : printed;
  }
  Sheet sheet;
  sheet.Add("programs", absl::StrCat(reply->programs()));
  sheet.Add("rules", absl::StrCat(reply->rules()));
  sheet.Add("revoked", Count(reply->revoked(), "grant"));
  sheet.Add("unavailable", absl::StrCat(reply->unavailable_size()));
  for (const std::string& line : reply->unavailable()) {
    sheet.Add("", Cell(line, Style::kBad));
  }
  sheet.Print();
  PrintNotAllowed(*reply);
  return kOk;
}

// -1 stands for what the kernel does not say.
std::string Setting(int32_t value) {
  return value < 0 ? "" : absl::StrCat(value);
}

void AddKernel(const v1::KernelFacts& kernel, Sheet& sheet) {
  sheet.Add("kernel", kernel.release());
  sheet.Add("preemption",
            Cell(absl::StrCat(kernel.preemption(), " (",
                              kernel.preemption_evidence(), ")"),
                 kernel.preemptible() ? Style::kDoubtful : Style::kPlain));
  sheet.Add("SO_PEERPIDFD", kernel.peer_pidfd() ? "yes" : "no");
  sheet.Add("setsockopt by ring",
            kernel.socket_uring_setsockopt() ? "yes" : "no");
  sheet.Add("io_uring loops",
            kernel.io_uring_loops() ? "yes" : "no: native twins only");
  sheet.Add("unprivileged_bpf_disabled",
            Setting(kernel.unprivileged_bpf_disabled()));
  sheet.Add("io_uring_disabled", Setting(kernel.io_uring_disabled()));
}

// What only administrators are told; nothing for others.
void AddFiles(const v1::StatusReply& reply, Sheet& sheet) {
  for (const std::string& folder : reply.catalog_directory()) {
    sheet.Add("catalog", folder);
  }
  for (const std::string& folder : reply.policy_directory()) {
    sheet.Add("policy", folder);
  }
  for (const std::string& folder : reply.key_directory()) {
    sheet.Add("keys", folder);
  }
  for (const std::string& file : reply.admission_file()) {
    sheet.Add("admission", file);
  }
  for (const v1::LimitInForce& limit : reply.admission_limit()) {
    sheet.Add(absl::StrCat("limit ", limit.name()),
              absl::StrCat(limit.value(), " (", limit.place(), ")"));
  }
  if (!reply.last_reload().empty()) {
    sheet.Add("last reload",
              Cell(reply.last_reload(),
                   reply.last_reload() == "ok" ? Style::kGood : Style::kBad));
  }
}

void PrintStatus(const v1::StatusReply& reply) {
  Sheet sheet;
  sheet.Add("version", reply.version());
  sheet.Add("started", absl::StrCat(LocalTime(reply.started_unix_ms()), " (",
                                    Age(reply.started_unix_ms()), " ago)"));
  sheet.Add("processes", absl::StrCat("broker ", reply.broker_pid(),
                                      ", loader ", reply.loader_pid()));
  sheet.Add("sessions", absl::StrCat(reply.sessions()));
  sheet.Add("grants", absl::StrCat(reply.grants(), " now, ",
                                   reply.acquired_total(), " so far"));
  sheet.Add("released, still held",
            Cell(absl::StrCat(reply.held()),
                 reply.held() > 0 ? Style::kDoubtful : Style::kPlain));
  sheet.Add("quota returns", reply.quota_returns());
  sheet.Add("audit trail",
            Cell(reply.audit(),
                 reply.audit() == "journal" ? Style::kPlain : Style::kBad));
  sheet.Add("system bus", reply.bus());
  sheet.Add("at a restart",
            reply.restart() == "kept"
                ? absl::StrCat("kept, in ", reply.stored_fds(), " fds")
                : reply.restart());
  if (reply.audit_lost() > 0) {
    sheet.Add("audit records lost",
              Cell(absl::StrCat(reply.audit_lost()), Style::kBad));
  }
  sheet.Add("programs",
            Cell(absl::StrCat(reply.programs(), " available, ",
                              reply.unavailable(), " unavailable"),
                 reply.unavailable() > 0 ? Style::kBad : Style::kPlain));
  sheet.Add("rules", absl::StrCat(reply.rules()));
  sheet.Add("gates", absl::StrCat(reply.gate_slots_used(), " of ",
                                  reply.gate_slots(), " in use"));
  sheet.Add("identity", reply.identity());
  AddFiles(reply, sheet);
  AddKernel(reply.kernel(), sheet);
  for (const std::string& name : reply.mitigations_off()) {
    sheet.Add("MITIGATION OFF", Cell(name, Style::kBad));
  }
  for (const v1::RefusalCount& refused : reply.refused()) {
    sheet.Add("refused",
              absl::StrCat(refused.count(), " ", ReasonName(refused.reason())));
  }
  sheet.Print();
}

absl::StatusOr<int> Status(const Settings& settings) {
  auto connection = Connect(settings);
  if (!connection.ok()) return connection.status();
  const auto reply = connection->Status();
  if (!reply.ok()) return reply.status();
  if (settings.json) {
    const absl::Status printed = PrintJson(*reply);
    return printed.ok() ? absl::StatusOr<int>(kOk) : printed;
  }
  PrintStatus(*reply);
  return kOk;
}

}  // namespace

void AddDaemonVerbs(CLI::App& app, Command& command) {
  const auto enforce = std::make_shared<bool>(false);
  AddVerb(app, command, "reload",
          "Reads catalog and policy again; for administrators",
          [enforce](const Settings& settings) {
            return Reload(settings, *enforce);
          })
      ->add_flag("--enforce", *enforce,
                 "end the live grants that the policy would not give any more");
  AddVerb(app, command, "status",
          "The daemon and the kernel under it, in numbers", Status);
}

}  // namespace bpfgrant::ctl
