// doctor: looks at everything that could be wrong, and says what to do.

#include <algorithm>
#include <cstdio>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "client/bpfgrantctl/command.h"
#include "client/bpfgrantctl/findings.h"
#include "client/bpfgrantctl/json.h"
#include "client/bpfgrantctl/machine.h"
#include "client/bpfgrantctl/output.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::ctl {
namespace {

const char* LevelName(Level level) {
  switch (level) {
    case Level::kFine:
      return "ok";
    case Level::kNote:
      return "note";
    case Level::kWrong:
      return "WRONG";
  }
  return "";
}

Style StyleOf(Level level) {
  return level == Level::kFine   ? Style::kGood
         : level == Level::kNote ? Style::kDoubtful
                                 : Style::kBad;
}

bool IsWrong(const Finding& finding) { return finding.level == Level::kWrong; }

// Why there is no session. Connect has checked that root listens there.
Finding JudgeConnection(const Settings& settings, const absl::Status& status) {
  const std::string message(status.message());
  if (IsRefusal(status)) {
    return {Level::kWrong, "daemon",
            absl::StrCat("it refuses this caller: ", message),
            std::string(NextStep(ReasonOf(status)))};
  }
  if (absl::IsPermissionDenied(status)) {
    return {Level::kWrong, "daemon", message,
            absl::StrCat("Somebody else serves that path: remove ",
                         settings.socket, " and start bpfgrantd.")};
  }
  if (absl::IsDeadlineExceeded(status)) {
    return {Level::kWrong, "daemon", message,
            "See what it does: journalctl -u bpfgrantd"};
  }
  return {Level::kWrong, "daemon", message,
          absl::StrCat("Start it: systemctl start bpfgrantd; or name its "
                       "socket with --socket.")};
}

Finding DescribeSession(const Settings& settings,
                        const Connection& connection) {
  const v1::HelloReply& session = connection.session();
  return {Level::kFine, "daemon",
          absl::StrCat(session.server(), " serves ", settings.socket,
                       " as root, and takes you for uid ", session.uid(),
                       session.administrator() ? ", an administrator"
                                               : ", not an administrator"),
          ""};
}

absl::Status Examine(Connection& connection, v1::StatusReply& status,
                     Findings& findings) {
  const auto reply = connection.Status();
  if (!reply.ok()) return reply.status();
  status = *reply;
  JudgeDaemon(status, connection.session().administrator(), findings);
  JudgeKernel(status.kernel(), findings);
  const auto& off = status.mitigations_off();
  const bool danger_ignored =
      std::find(off.begin(), off.end(), "dangerous_program_fd") != off.end();
  const auto programs = connection.List();
  if (!programs.ok()) return programs.status();
  for (const v1::ProgramSummary& summary : programs->program()) {
    const auto program = connection.Describe(summary.name());
    // Withdrawn since the list was made, if it is not there any more.
    if (ReasonOf(program.status()) == v1::REASON_UNKNOWN_PROGRAM) continue;
    if (!program.ok()) return program.status();
    JudgeProgram(*program, danger_ignored, findings);
  }
  return absl::OkStatus();
}

absl::Status PrintAsJson(const Findings& findings,
                         const v1::StatusReply* status) {
  google::protobuf::Struct object;
  auto& fields = *object.mutable_fields();
  auto& list = *fields["findings"].mutable_list_value();
  for (const Finding& finding : findings) {
    auto& entry = *list.add_values()->mutable_struct_value()->mutable_fields();
    entry["level"].set_string_value(
        absl::AsciiStrToLower(LevelName(finding.level)));
    entry["topic"].set_string_value(finding.topic);
    entry["what"].set_string_value(finding.what);
    entry["advice"].set_string_value(finding.advice);
  }
  if (status != nullptr) {
    const auto value = ToValue(*status);
    if (!value.ok()) return value.status();
    fields["status"] = *value;
  }
  return PrintJson(object);
}

void Print(const Findings& findings) {
  constexpr int kLevelWidth = 5;
  size_t width = 0;
  for (const Finding& finding : findings) {
    width = std::max(width, Escape(finding.topic).size());
  }
  const int columns = static_cast<int>(width);
  for (const Finding& finding : findings) {
    const std::string level = LevelName(finding.level);
    const std::string what = Escape(finding.what);
    std::printf("%s%*s  %-*s  %s\n",
                Paint(StyleOf(finding.level), level).c_str(),
                kLevelWidth - static_cast<int>(level.size()), "", columns,
                Escape(finding.topic).c_str(),
                (IsWrong(finding) ? Paint(Style::kBad, what) : what).c_str());
    if (!finding.advice.empty()) {
      std::printf("%*s  %*s  -> %s\n", kLevelWidth, "", columns, "",
                  Escape(finding.advice).c_str());
    }
  }
  const auto wrong = static_cast<uint64_t>(
      std::count_if(findings.begin(), findings.end(), IsWrong));
  std::printf("%s\n",
              wrong == 0
                  ? Paint(Style::kGood, "Nothing is wrong.").c_str()
                  : Paint(Style::kBad,
                          absl::StrCat(Count(wrong, "thing"),
                                       wrong == 1 ? " is" : " are", " wrong."))
                        .c_str());
}

absl::StatusOr<int> Doctor(const Settings& settings) {
  Findings findings;
  v1::StatusReply status;
  auto connection = Connect(settings);
  absl::Status reached = connection.status();
  if (reached.ok()) {
    findings.push_back(DescribeSession(settings, *connection));
    JudgeControlSocket(settings.socket, findings);
    reached = Examine(*connection, status, findings);
  }
  if (!reached.ok()) {
    findings.push_back(JudgeConnection(settings, reached));
    // What can be known without the daemon, unless it was said before.
    if (status.version().empty()) {
      JudgeSettings(ReadSetting("unprivileged_bpf_disabled"),
                    ReadSetting("io_uring_disabled"), findings);
    }
  }
  JudgeMachine(ReadMachine(), findings);
  if (settings.json) {
    const absl::Status printed =
        PrintAsJson(findings, status.version().empty() ? nullptr : &status);
    if (!printed.ok()) return printed;
  } else {
    Print(findings);
  }
  return std::any_of(findings.begin(), findings.end(), IsWrong) ? kRefused
                                                                : kOk;
}

}  // namespace

void AddDoctor(CLI::App& app, Command& command) {
  AddVerb(app, command, "doctor",
          "What is in order and what is not, each with what to do", Doctor);
}

}  // namespace bpfgrant::ctl
