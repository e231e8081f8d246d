// The calls that measure: Metrics and Activity.

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "daemon/broker/activity.h"
#include "daemon/broker/open_metrics.h"
#include "daemon/broker/service.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant::broker {
namespace {

using Type = OpenMetrics::Type;

void Write(OpenMetrics& text, std::string_view name, Type type,
           std::string_view help, uint64_t value, std::string_view unit = "") {
  text.Begin(name, type, help, unit);
  text.Add("", {}, value);
}

void WriteRuns(const ActivityReport& activity, OpenMetrics& text) {
  text.Begin("bpfgrant_program_runs", Type::kCounter,
             "Runs of a program, while the kernel counts them");
  for (const v1::ProgramActivity& each : activity.programs) {
    text.Add(each.program(), {{"program", each.program()}},
             each.count().runs());
  }
  text.Begin("bpfgrant_program_run_seconds", Type::kCounter,
             "Time that these runs took", "seconds");
  for (const v1::ProgramActivity& each : activity.programs) {
    text.Add(each.program(), {{"program", each.program()}},
             static_cast<double>(each.count().run_ns()) / 1e9);
  }
  text.Begin("bpfgrant_program_recursion_misses", Type::kCounter,
             "Runs that did not happen because the program was running there "
             "already; counted always");
  for (const v1::ProgramActivity& each : activity.programs) {
    text.Add(each.program(), {{"program", each.program()}},
             each.count().recursion_misses());
  }
  text.Begin("bpfgrant_program_instances", Type::kGauge,
             "Instances that the kernel has, ready ones among them");
  for (const v1::ProgramActivity& each : activity.programs) {
    text.Add(each.program(), {{"program", each.program()}},
             uint64_t{each.instances()});
  }
}

void WriteRingBuffers(const ActivityReport& activity, OpenMetrics& text) {
  const auto add = [&](auto value_of) {
    for (const auto& [name, use] : activity.ring_buffers) {
      text.Add(absl::StrCat(name.first, " ", name.second),
               {{"program", name.first}, {"map", name.second}}, value_of(use));
    }
  };
  using Use = ActivityReport::RingBuffers;
  text.Begin("bpfgrant_ring_buffer_size_bytes", Type::kGauge,
             "Ring buffers of live grants", "bytes");
  add([](const Use& use) { return use.size_bytes; });
  text.Begin("bpfgrant_ring_buffer_used_bytes", Type::kGauge,
             "What is in them and was not consumed", "bytes");
  add([](const Use& use) { return use.used_bytes; });
  text.Begin("bpfgrant_ring_buffer_fullest_ratio", Type::kGauge,
             "How full the fullest of them is; a full one loses events",
             "ratio");
  add([](const Use& use) { return use.fullest; });
}

void WriteActivity(const ActivityReport& activity, OpenMetrics& text) {
  Write(text, "bpfgrant_program_statistics_available", Type::kGauge,
        "Whether the kernel can tell what programs do",
        activity.unavailable.empty() ? 1 : 0);
  Write(text, "bpfgrant_program_statistics_enabled", Type::kGauge,
        "Whether the kernel counts runs now: kernel.bpf_stats_enabled, or "
        "bpfgrantctl top",
        activity.counting ? 1 : 0);
  WriteRuns(activity, text);
  WriteRingBuffers(activity, text);
}

// Programs by name before grants by id.
std::string KeyOf(const v1::ProgramActivity& program) {
  return absl::StrCat("0", program.program());
}
std::string KeyOf(const v1::GrantActivity& grant) {
  return absl::StrFormat("1%020d", grant.grant());
}

v1::ActivityReply ReadPage(const ActivityReport& activity,
                           const std::string& after) {
  v1::ActivityReply reply;
  reply.set_at_ns(activity.at_ns);
  reply.set_counting(activity.counting);
  reply.set_unavailable(activity.unavailable);
  size_t bytes = 0;
  std::string last;
  const auto add = [&](const auto& all, auto* list) {
    for (const auto& each : all) {
      std::string key = KeyOf(each);
      if (key <= after) continue;
      bytes += each.ByteSizeLong() + 4;
      if (bytes > kListReplyBytes && !last.empty()) return false;
      *list->Add() = each;
      last = std::move(key);
    }
    return true;
  };
  if (!add(activity.programs, reply.mutable_program()) ||
      !add(activity.grants, reply.mutable_grant())) {
    reply.set_next(last);
  }
  return reply;
}

}  // namespace

// What Status tells everybody.
void Service::WriteAggregates(OpenMetrics& text) const {
  v1::StatusReply status;
  parts_.fill_status(status);
  text.Begin("bpfgrant_build", Type::kInfo, "The daemon's version");
  text.Add("", {{"version", BPFGRANT_VERSION}}, uint64_t{1});
  text.Begin("bpfgrant_start_time_seconds", Type::kGauge,
             "When the daemon began, in Unix time", "seconds");
  text.Add("", {}, static_cast<double>(status.started_unix_ms()) / 1e3);
  Write(text, "bpfgrant_sessions", Type::kGauge, "Clients that are connected",
        status.sessions());
  Write(text, "bpfgrant_grants", Type::kGauge, "Grants that live",
        parts_.ledger.size());
  Write(text, "bpfgrant_grants_held", Type::kGauge,
        "Grants that ended and of which the kernel still has something",
        parts_.ledger.retired());
  Write(text, "bpfgrant_acquired", Type::kCounter, "Grants that began",
        parts_.ledger.total());
  Write(text, "bpfgrant_gate_slots", Type::kGauge,
        "Instances that there can be at once", parts_.gates.slots());
  Write(text, "bpfgrant_gate_slots_used", Type::kGauge, "Instances that are",
        parts_.gates.used());
  const v1::ReloadReply summary = broker::Summarize(parts_.granting.snapshot());
  text.Begin("bpfgrant_programs", Type::kGauge, "Programs of the catalog");
  text.Add("1", {{"state", "available"}}, uint64_t{summary.programs()});
  text.Add("2", {{"state", "unavailable"}},
           parts_.granting.snapshot().programs().size() - summary.programs());
  Write(text, "bpfgrant_policy_rules", Type::kGauge, "Rules of the policy",
        summary.rules());
}

void Service::WritePool(OpenMetrics& text) const {
  const auto& programs = parts_.granting.snapshot().programs();
  text.Begin("bpfgrant_program_grants", Type::kGauge,
             "Grants that live, by program");
  for (const auto& [name, program] : programs) {
    text.Add(name, {{"program", name}},
             uint64_t{parts_.ledger.OfProgram(name)});
  }
  text.Begin("bpfgrant_pool_ready", Type::kGauge,
             "Instances that wait for somebody to want them");
  for (const auto& [name, program] : programs) {
    text.Add(name, {{"program", name}}, uint64_t{parts_.pool.Ready(name)});
  }
  text.Begin("bpfgrant_pool_target", Type::kGauge,
             "How many should: the manifest's pool.ready");
  for (const auto& [name, program] : programs) {
    text.Add(name, {{"program", name}}, uint64_t{program.entry.pool_target()});
  }
  Write(text, "bpfgrant_pool_bytes", Type::kGauge,
        "Map memory of all of them, about", parts_.pool.bytes(), "bytes");
  Write(text, "bpfgrant_pool_fds", Type::kGauge, "File descriptors of them",
        parts_.pool.fds());
}

void Service::WriteLatencies(OpenMetrics& text) const {
  text.Begin("bpfgrant_refusals", Type::kCounter, "Calls that were refused");
  for (int reason = 0; reason < v1::Reason_ARRAYSIZE; ++reason) {
    if (refused_[reason] == 0) continue;
    text.Add(absl::StrFormat("%04d", reason),
             {{"reason", ReasonName(static_cast<v1::Reason>(reason))}},
             refused_[reason]);
  }
  text.Begin("bpfgrant_acquire_seconds", Type::kHistogram,
             "From a frame with Acquire or Claim to its reply with a grant: "
             "warm from what was ready, cold with work of the loader's",
             "seconds");
  text.Add("cold", {{"path", "cold"}}, acquires_cold_);
  text.Add("warm", {{"path", "warm"}}, acquires_warm_);
  text.Begin("bpfgrant_load_seconds", Type::kHistogram,
             "Loading an instance, for the pool or for who waits", "seconds");
  text.Add("", {}, parts_.pool.loads());
  Write(text, "bpfgrant_load_failures", Type::kCounter,
        "Loads that failed, of them", parts_.pool.failed_loads());
  text.Begin("bpfgrant_reload_seconds", Type::kHistogram,
             "Reading catalog and policy again", "seconds");
  text.Add("", {}, reloads_);
  Write(text, "bpfgrant_reload_failures", Type::kCounter,
        "Reloads that were rejected, of them", rejected_reloads_);
  v1::StatusReply status;
  parts_.fill_status(status);
  Write(text, "bpfgrant_audit_lost", Type::kCounter,
        "Records of the audit trail that could not be written",
        status.audit_lost());
}

v1::MetricsReply Service::WriteMetrics(const std::string& after,
                                       const ActivityReport* activity) const {
  OpenMetrics text(after, kListReplyBytes);
  WriteAggregates(text);
  if (activity != nullptr) {
    WritePool(text);
    WriteLatencies(text);
    WriteActivity(*activity, text);
  }
  return std::move(text).Finish();
}

void Service::Metrics(const Session& session, const v1::MetricsRequest& request,
                      Answer<v1::MetricsReply> answer) {
  if (!session.administrator) {
    answer(WriteMetrics(request.after(), nullptr));
    return;
  }
  activity_.Ask([this, after = request.after(),
                 answer = std::move(answer)](const auto& activity) mutable {
    answer(WriteMetrics(after, activity.get()));
  });
}

void Service::Activity(const Session& session,
                       const v1::ActivityRequest& request,
                       Answer<v1::ActivityReply> answer) {
  if (absl::Status status = CheckAdministrator(session); !status.ok()) {
    answer(status);
    return;
  }
  activity_.Ask([after = request.after(),
                 answer = std::move(answer)](const auto& activity) mutable {
    answer(ReadPage(*activity, after));
  });
}

}  // namespace bpfgrant::broker
