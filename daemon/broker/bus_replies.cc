#include "daemon/broker/bus_replies.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::broker {
namespace {

template <typename Strings>
void AppendStrings(sd_bus_message* message, const Strings& strings) {
  sd_bus_message_open_container(message, 'a', "s");
  for (const std::string& string : strings) {
    sd_bus_message_append(message, "s", string.c_str());
  }
  sd_bus_message_close_container(message);
}

// Entries of a dictionary.
void AppendEntry(sd_bus_message* message, const char* key,
                 const std::string& value) {
  sd_bus_message_append(message, "{sv}", key, "s", value.c_str());
}
void AppendEntry(sd_bus_message* message, const char* key, uint32_t value) {
  sd_bus_message_append(message, "{sv}", key, "u", value);
}
void AppendEntry(sd_bus_message* message, const char* key, uint64_t value) {
  sd_bus_message_append(message, "{sv}", key, "t", value);
}
template <typename Strings>
void AppendListEntry(sd_bus_message* message, const char* key,
                     const Strings& values) {
  sd_bus_message_open_container(message, 'e', "sv");
  sd_bus_message_append(message, "s", key);
  sd_bus_message_open_container(message, 'v', "as");
  AppendStrings(message, values);
  sd_bus_message_close_container(message);
  sd_bus_message_close_container(message);
}

std::string Describe(const v1::ConsultedRule& rule) {
  return absl::StrCat(
      rule.rule(), " (", rule.file(), ":", rule.line(), ") ",
      rule.deny() ? (rule.observe() ? "observes" : "denies") : "allows", ": ",
      rule.matches() ? "matches" : rule.why());
}

}  // namespace

void FillList(sd_bus_message* message, const v1::ListReply& reply) {
  sd_bus_message_open_container(message, 'a', "(sssbbs)");
  for (const v1::ProgramSummary& program : reply.program()) {
    sd_bus_message_append(message, "(sssbbs)", program.name().c_str(),
                          program.interface().c_str(),
                          program.description().c_str(),
                          static_cast<int>(program.available()),
                          static_cast<int>(program.verdict().allowed()),
                          program.verdict().rule().c_str());
  }
  sd_bus_message_close_container(message);
  sd_bus_message_append(message, "s", reply.next().c_str());
}

void FillGrants(sd_bus_message* message, const v1::GrantsReply& reply) {
  sd_bus_message_open_container(message, 'a', "(tsuusstbs)");
  for (const v1::GrantInfo& grant : reply.grant()) {
    const bool live = grant.ended() == v1::REASON_UNSPECIFIED;
    sd_bus_message_append(
        message, "(tsuusstbs)", grant.grant(), grant.program().c_str(),
        grant.uid(), grant.pid(), grant.unit().c_str(), grant.rule().c_str(),
        static_cast<uint64_t>(grant.began_unix_ms()) * 1000,
        static_cast<int>(live), live ? "" : ReasonName(grant.ended()).c_str());
  }
  sd_bus_message_close_container(message);
  sd_bus_message_append(message, "t", reply.next());
}

void FillCheck(sd_bus_message* message, const v1::DescribeReply& reply) {
  sd_bus_message_append(message, "bs",
                        static_cast<int>(reply.summary().available()),
                        reply.refusal().c_str());
}

void FillExplain(sd_bus_message* message, const v1::ExplainReply& reply) {
  sd_bus_message_append(
      message, "bss", static_cast<int>(reply.verdict().allowed()),
      reply.verdict().rule().c_str(), reply.sentence().c_str());
  sd_bus_message_open_container(message, 'a', "s");
  for (const v1::ConsultedRule& rule : reply.consulted()) {
    sd_bus_message_append(message, "s", Describe(rule).c_str());
  }
  sd_bus_message_close_container(message);
}

void FillRevoke(sd_bus_message* message, const v1::RevokeReply& reply) {
  sd_bus_message_append(message, "ub", reply.revoked(),
                        static_cast<int>(reply.running()));
}

void FillReload(sd_bus_message* message, const v1::ReloadReply& reply) {
  sd_bus_message_append(message, "u", reply.programs());
  AppendStrings(message, reply.unavailable());
  sd_bus_message_append(message, "uu", reply.rules(), reply.revoked());
}

void FillStatus(sd_bus_message* message, const v1::StatusReply& reply) {
  sd_bus_message_open_container(message, 'a', "{sv}");
  AppendEntry(message, "Version", reply.version());
  AppendEntry(message, "Started",
              static_cast<uint64_t>(reply.started_unix_ms()) * 1000);
  AppendEntry(message, "BrokerPid", reply.broker_pid());
  AppendEntry(message, "LoaderPid", reply.loader_pid());
  AppendEntry(message, "Sessions", reply.sessions());
  AppendEntry(message, "Grants", reply.grants());
  AppendEntry(message, "Held", reply.held());
  AppendEntry(message, "Programs", reply.programs());
  AppendEntry(message, "Unavailable", reply.unavailable());
  AppendEntry(message, "Rules", reply.rules());
  AppendEntry(message, "Identity", reply.identity());
  AppendEntry(message, "QuotaReturns", reply.quota_returns());
  AppendEntry(message, "Audit", reply.audit());
  // Only an administrator's has it, and what follows.
  if (!reply.last_reload().empty()) {
    AppendEntry(message, "LastReload", reply.last_reload());
    AppendListEntry(message, "CatalogDirectories", reply.catalog_directory());
    AppendListEntry(message, "PolicyDirectories", reply.policy_directory());
    AppendListEntry(message, "KeyDirectories", reply.key_directory());
    AppendListEntry(message, "AdmissionFiles", reply.admission_file());
  }
  sd_bus_message_close_container(message);
}

}  // namespace bpfgrant::broker
