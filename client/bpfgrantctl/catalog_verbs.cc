// The verbs about programs: list, describe, header.

#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/bpfgrantctl/command.h"
#include "client/bpfgrantctl/json.h"
#include "client/bpfgrantctl/output.h"
#include "policy/parameter.h"
#include "policy/policy.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::ctl {
namespace {

Cell YesOrReason(bool yes, v1::Reason reason) {
  if (yes || reason == v1::REASON_UNSPECIFIED) return YesNo(yes);
  return Cell(ReasonName(reason), Style::kBad);
}

absl::StatusOr<int> List(const Settings& settings) {
  auto connection = Connect(settings);
  if (!connection.ok()) return connection.status();
  const auto reply = connection->List();
  if (!reply.ok()) return reply.status();
  if (settings.json) {
    const absl::Status printed = PrintJson(*reply);
    return printed.ok() ? absl::StatusOr<int>(kOk) : printed;
  }
  Table table({"NAME", "INTERFACE", "AVAILABLE", "ALLOWED", "RULE", "READY",
               "GRANTS", "DESCRIPTION"});
  for (const v1::ProgramSummary& program : reply->program()) {
    const v1::Verdict& verdict = program.verdict();
    table.Add({program.name(), program.interface(),
               YesOrReason(program.available(), program.reason()),
               YesOrReason(verdict.allowed(), verdict.reason()), verdict.rule(),
               absl::StrCat(program.pool_ready()),
               absl::StrCat(program.grants()), program.description()});
  }
  table.Print();
  return kOk;
}

// An enum's value as manifests spell it.
std::string Bare(const std::string& name, size_t prefix) {
  return name.size() > prefix ? name.substr(prefix) : name;
}

void PrintHandles(const v1::DescribeReply& reply) {
  if (reply.handle().empty()) return;
  std::printf("\n");
  Table table(
      {"HANDLE", "KIND", "RIGHTS", "KEY", "VALUE", "ENTRIES", "MAPPABLE"});
  for (const v1::Handle& handle : reply.handle()) {
    table.Add(
        {handle.name(),
         Bare(v1::HandleKind_Name(handle.kind()), sizeof("HANDLE_KIND_") - 1),
         Bare(v1::Rights_Name(handle.rights()), sizeof("RIGHTS_") - 1),
         absl::StrCat(handle.key_size()), absl::StrCat(handle.value_size()),
         absl::StrCat(handle.max_entries()), handle.mappable() ? "yes" : "no"});
  }
  table.Print();
}

std::string DefaultOf(const v1::Parameter& parameter) {
  if (parameter.has_default_()) {
    return policy::DescribeValue(parameter.default_());
  }
  return parameter.optional() ? "none" : "must be given";
}

void PrintParameters(const v1::DescribeReply& reply) {
  if (reply.parameter().empty()) return;
  std::printf("\n");
  Table table({"PARAMETER", "MAY BE", "DEFAULT", "SET", "DESCRIPTION"});
  for (const v1::Parameter& parameter : reply.parameter()) {
    table.Add({parameter.name(), policy::RangeOf(parameter),
               DefaultOf(parameter),
               parameter.has_constant() ? "at load" : "in a map",
               parameter.description()});
  }
  table.Print();
}

std::string TargetInWords(v1::Target target) {
  switch (target) {
    case v1::TARGET_SOCKET:
      return "a socket (SO_ATTACH_BPF)";
    case v1::TARGET_REUSEPORT:
      return "a socket's reuseport group (SO_ATTACH_REUSEPORT_EBPF)";
    case v1::TARGET_TUN:
      return "a tun or tap device (TUNSETSTEERINGEBPF)";
    default:
      return absl::StrCat("target ", static_cast<int>(target));
  }
}

std::string AllowedDeliveries(const v1::ProgramDescription& detail) {
  std::vector<std::string> names;
  for (const int delivery : detail.allowed_delivery()) {
    names.push_back(Bare(v1::Delivery_Name(static_cast<v1::Delivery>(delivery)),
                         sizeof("DELIVERY_") - 1));
  }
  return absl::StrJoin(names, " ");
}

// What admission found, which is what somebody who looks here often looks for.
void AddAdmission(const v1::DescribeReply& reply, Sheet& sheet) {
  const v1::ProgramSummary& summary = reply.summary();
  sheet.Add("available", YesOrReason(summary.available(), summary.reason()));
  if (!reply.refusal().empty()) {
    sheet.Add("refusal", Cell(reply.refusal(), Style::kBad));
  }
  for (int i = 0; i < reply.variant_size(); ++i) {
    const v1::VariantDescription& variant = reply.variant(i);
    const std::string outcome = variant.chosen()  ? "chosen"
                                : variant.tried() ? variant.refusal()
                                                  : "not tried";
    sheet.Add(i == 0 ? "variants" : "",
              absl::StrCat(variant.name(), ": ", outcome));
  }
  if (!reply.verifier_log().empty()) {
    const std::vector<std::string> lines = absl::StrSplit(
        absl::StripTrailingAsciiWhitespace(reply.verifier_log()), '\n');
    for (size_t i = 0; i < lines.size(); ++i) {
      sheet.Add(i == 0 ? "verifier log" : "", lines[i]);
    }
  }
}

std::string SetupFlags(uint32_t flags) {
  // Names that older headers lack, too (io_uring_setup(2)).
  constexpr std::pair<uint32_t, const char*> kNames[] = {
      {1U << 3, "CQSIZE"},         {1U << 6, "R_DISABLED"},
      {1U << 7, "SUBMIT_ALL"},     {1U << 12, "SINGLE_ISSUER"},
      {1U << 13, "DEFER_TASKRUN"}, {1U << 16, "NO_SQARRAY"},
      {1U << 20, "SQ_REWIND"}};
  std::vector<std::string> names;
  for (const auto& [flag, name] : kNames) {
    if ((flags & flag) != 0) names.push_back(name);
    flags &= ~flag;
  }
  if (flags != 0) names.push_back(absl::StrCat("0x", absl::Hex(flags)));
  return absl::StrJoin(names, " ");
}

// The ring that a loop wants, and all that it can do.
void AddLoop(const v1::LoopDescription& loop, Sheet& sheet) {
  sheet.Add("ring", absl::StrCat(loop.sq_entries(), " submissions, ",
                                 loop.cq_entries(), " completions"));
  sheet.Add("ring flags", SetupFlags(loop.setup_flags()));
  sheet.Add("ring memory",
            loop.memory_bytes() == 0 ? "none" : Bytes(loop.memory_bytes()));
  sheet.Add("operations", absl::StrJoin(loop.opcode(), " "));
  sheet.Add("request flags", absl::StrJoin(loop.sqe_flag(), " "));
  sheet.Add("register calls",
            loop.register_call().empty()
                ? std::string("only those that all loops have")
                : absl::StrJoin(loop.register_call(), " "));
  sheet.Add("step budget",
            absl::StrCat(loop.step_budget(), " steps, then it comes back"));
  sheet.Add("can be traced", loop.traceable() ? "yes" : "no");
}

void PrintDescription(const v1::DescribeReply& reply) {
  const v1::ProgramSummary& summary = reply.summary();
  const v1::ProgramDescription& detail = reply.detail();
  Sheet sheet;
  sheet.Add("name", summary.name());
  sheet.Add("description", summary.description());
  sheet.Add("interface", summary.interface());
  sheet.Add("interface hash", reply.interface_hash());
  sheet.Add("manifest", reply.file());
  sheet.Add("digest", reply.digest());
  if (reply.signed_by_size() > 0) {
    sheet.Add("signed by", absl::StrJoin(reply.signed_by(), ", "));
  }
  AddAdmission(reply, sheet);
  sheet.Add("allowed", YesOrReason(summary.verdict().allowed(),
                                   summary.verdict().reason()));
  sheet.Add("because", policy::DescribeVerdict(summary.verdict()));
  sheet.Add("program", absl::StrCat(detail.name(), ", ", detail.type(),
                                    ", function ", detail.entry_point()));
  sheet.Add("delivery", AllowedDeliveries(detail));
  if (detail.target() != v1::TARGET_UNSPECIFIED) {
    sheet.Add("attached to", TargetInWords(detail.target()));
  }
  if (!detail.fd_danger().empty()) {
    sheet.Add("danger of its fd", Cell(detail.fd_danger(), Style::kDoubtful));
  }
  sheet.Add("once revoked", detail.has_loop()
                                ? std::string("stops at its next step")
                            : detail.tracepoint_size() > 0
                                ? "sees nothing of the process any more"
                                : detail.on_revoke());
  if (detail.tracepoint_size() > 0) {
    sheet.Add("tracepoints", absl::StrJoin(detail.tracepoint(), " "));
  }
  if (detail.has_loop()) AddLoop(detail.loop(), sheet);
  sheet.Add("irrevocable", reply.irrevocable());
  sheet.Add("map memory",
            absl::StrCat(Bytes(reply.instance_bytes()), " for each grant"));
  sheet.Add("ready", absl::StrCat(summary.pool_ready()));
  sheet.Add("grants", absl::StrCat(summary.grants()));
  sheet.Print();
  PrintHandles(reply);
  PrintParameters(reply);
}

absl::StatusOr<v1::DescribeReply> AskDescription(const Settings& settings,
                                                 const std::string& program) {
  auto connection = Connect(settings);
  if (!connection.ok()) return connection.status();
  auto reply = connection->Describe(program);
  if (reply.ok() && settings.json) {
    const absl::Status printed = PrintJson(*reply);
    if (!printed.ok()) return printed;
  }
  return reply;
}

absl::StatusOr<int> Describe(const Settings& settings,
                             const std::string& program) {
  const auto reply = AskDescription(settings, program);
  if (!reply.ok()) return reply.status();
  if (!settings.json) PrintDescription(*reply);
  return kOk;
}

absl::StatusOr<int> Header(const Settings& settings,
                           const std::string& program) {
  const auto reply = AskDescription(settings, program);
  if (!reply.ok()) return reply.status();
  if (settings.json) return kOk;
  if (reply->header().empty()) {
    return Refuse(v1::REASON_PROGRAM_UNAVAILABLE,
                  absl::StrCat("'", program, "' has no header"));
  }
  std::printf("%s", EscapeLines(reply->header()).c_str());
  if (reply->header().back() != '\n') std::printf("\n");
  return kOk;
}

using ProgramVerb = absl::StatusOr<int> (*)(const Settings&,
                                            const std::string&);

void AddProgramVerb(CLI::App& app, Command& command, const std::string& name,
                    const std::string& description, ProgramVerb verb) {
  const auto program = std::make_shared<std::string>();
  AddVerb(app, command, name, description,
          [program, verb](const Settings& settings) {
            return verb(settings, *program);
          })
      ->add_option("NAME", *program, "the program")
      ->required()
      ->check(CheckText);
}

}  // namespace

void AddCatalogVerbs(CLI::App& app, Command& command) {
  AddVerb(app, command, "list",
          "The programs you may have; for an administrator, all of them", List);
  AddProgramVerb(app, command, "describe", "All that is known of a program",
                 Describe);
  AddProgramVerb(app, command, "header",
                 "A program's C header, for its clients to be built with",
                 Header);
}

}  // namespace bpfgrant::ctl
