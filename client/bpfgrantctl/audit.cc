// audit: what was approved, granted, denied and revoked, as the journal has it.

#include <pwd.h>

#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/bpfgrantctl/command.h"
#include "client/bpfgrantctl/journal_reader.h"
#include "client/bpfgrantctl/json.h"
#include "client/bpfgrantctl/output.h"
#include "proto/audit/audit_record.h"

namespace bpfgrant::ctl {
namespace {

using Record = v1::AuditRecord;

// Shown of what there is before it follows, unless told otherwise.
constexpr uint64_t kLinesBeforeFollowing = 10;

constexpr int kMaxLines = 1'000'000'000;

struct Question {
  std::vector<std::string> programs, digests, grants, users, units, rules;
  std::vector<std::string> events;
  std::optional<std::string> since, until;
  std::optional<uint64_t> lines;
  bool follow = false;
  std::string directory;
  std::string written_by = "bpfgrantd.service";
};

// A moment, or how long ago: "2026-11-21 06:24:11", "2026-11-21", "1h30m".
absl::StatusOr<uint64_t> ParseMoment(const std::string& text) {
  absl::Duration ago;
  if (absl::ParseDuration(text, &ago) && ago >= absl::ZeroDuration()) {
    return static_cast<uint64_t>(absl::ToUnixMicros(absl::Now() - ago));
  }
  for (const char* format : {"%Y-%m-%d %H:%M:%E*S", "%Y-%m-%d %H:%M",
                             "%Y-%m-%d", "%Y-%m-%d%ET%H:%M:%E*S%Ez"}) {
    absl::Time moment;
    if (absl::ParseTime(format, text, absl::LocalTimeZone(), &moment,
                        nullptr)) {
      return static_cast<uint64_t>(absl::ToUnixMicros(moment));
    }
  }
  return UsageError(absl::StrCat(
      "'", text,
      "' is no moment: write 2026-11-21 06:24:11, 2026-11-21, or how long ago, "
      "like 90s or 1h30m"));
}

absl::StatusOr<std::string> UidOf(const std::string& user) {
  uint32_t uid = 0;
  if (absl::SimpleAtoi(user, &uid)) return absl::StrCat(uid);
  const passwd* found = getpwnam(user.c_str());
  if (found != nullptr) return absl::StrCat(found->pw_uid);
  return UsageError(absl::StrCat("no user '", user, "' on this machine"));
}

absl::Status AddTimes(const Question& question, AuditQuery& query) {
  for (const auto& [text, moment] :
       {std::pair{&question.since, &query.since_us},
        {&question.until, &query.until_us}}) {
    if (!text->has_value()) continue;
    const auto parsed = ParseMoment(**text);
    if (!parsed.ok()) return parsed.status();
    *moment = *parsed;
  }
  return absl::OkStatus();
}

absl::StatusOr<AuditQuery> MakeQuery(const Question& question) {
  AuditQuery query;
  const auto add = [&query](const char* field,
                            const std::vector<std::string>& values) {
    for (const std::string& value : values) {
      query.matches.push_back(absl::StrCat(field, "=", value));
    }
  };
  add(kAuditProgramField, question.programs);
  add(kAuditDigestField, question.digests);
  add(kAuditGrantField, question.grants);
  add(kAuditUnitField, question.units);
  add(kAuditRuleField, question.rules);
  for (const std::string& user : question.users) {
    const auto uid = UidOf(user);
    if (!uid.ok()) return uid.status();
    add(kAuditUidField, {*uid});
  }
  for (const std::string& name : question.events) {
    query.events.push_back(FindAuditEvent(name)->event);
  }
  if (absl::Status status = AddTimes(question, query); !status.ok()) {
    return status;
  }
  query.lines = question.lines;
  if (question.follow && !question.lines.has_value() &&
      !question.since.has_value()) {
    query.lines = kLinesBeforeFollowing;
  }
  query.directory = question.directory;
  query.written_by = question.written_by;
  return query;
}

Style StyleOf(Record::Event event) {
  switch (event) {
    case Record::GRANT_DENIED:
    case Record::RELOAD_REJECTED:
    case Record::PROGRAM_UNAVAILABLE:
    case Record::RECORDS_LOST:
      return Style::kBad;
    case Record::GRANTS_REVOKED:
    case Record::NOT_LISTED:
    case Record::PROGRAM_WITHDRAWN:
      return Style::kDoubtful;
    default:
      return Style::kPlain;
  }
}

absl::Status Print(const Settings& settings, const Record& record) {
  if (settings.json) return PrintJson(record, Layout::kOneLine);
  constexpr int kMsPerSecond = 1000;
  std::printf(
      "%s  %s\n", LocalTime(record.at_unix_us() / kMsPerSecond).c_str(),
      Paint(StyleOf(record.event()), Escape(DescribeAuditRecord(record)))
          .c_str());
  return absl::OkStatus();
}

absl::StatusOr<int> Audit(const Settings& settings, const Question& question) {
  const auto query = MakeQuery(question);
  if (!query.ok()) return query.status();
  auto reader = JournalReader::Open(*query);
  if (!reader.ok()) return reader.status();
  for (;;) {
    const auto record = reader->Next();
    if (!record.ok()) return record.status();
    if (record->has_value()) {
      if (absl::Status status = Print(settings, **record); !status.ok()) {
        return status;
      }
      continue;
    }
    if (!question.follow) return kOk;
    // Whoever reads a pipe wants each record when it is made.
    if (std::fflush(stdout) != 0) return kInternal;
    if (absl::Status status = reader->Wait(); !status.ok()) return status;
  }
}

// For CLI11.
std::string CheckEvent(const std::string& name) {
  if (FindAuditEvent(name) != nullptr) return "";
  std::string known;
  for (const AuditEvent& event : AuditEvents()) {
    absl::StrAppend(&known, known.empty() ? "" : ", ", event.name);
  }
  return absl::StrCat("'", name, "' is none of: ", known);
}

}  // namespace

void AddAudit(CLI::App& app, Command& command) {
  const auto question = std::make_shared<Question>();
  CLI::App* verb = AddVerb(
      app, command, "audit",
      "What was approved, granted, denied and revoked, as the journal has it",
      [question](const Settings& settings) {
        return Audit(settings, *question);
      });
  const auto add = [verb](const char* name, std::vector<std::string>& values,
                          const char* type, const char* what) {
    return verb->add_option(name, values, what)
        ->type_name(type)
        ->allow_extra_args(false);
  };
  add("--event", question->events, "EVENT",
      "only these: grant-denied, program-approved, ...; may be repeated, as "
      "the "
      "following")
      ->check(CheckEvent);
  add("--program", question->programs, "NAME", "only of this program");
  add("--digest", question->digests, "SHA256", "only of this object");
  add("--grant", question->grants, "ID", "only of this grant");
  add("--user", question->users, "USER",
      "only of this user, by name or number");
  add("--unit", question->units, "UNIT", "only of processes in this unit");
  add("--rule", question->rules, "NAME", "only what this rule decided");
  verb->add_option("--since", question->since,
                   "not before: 2026-11-21 06:24:11, or how long ago: 1h30m")
      ->type_name("TIME");
  verb->add_option("--until", question->until, "not after")->type_name("TIME");
  verb->add_option("--lines", question->lines, "the last so many")
      ->type_name("N")
      ->check(CLI::Range(0, kMaxLines));
  verb->add_flag("--follow", question->follow,
                 "go on with what happens from now on");
  verb->add_option("--directory", question->directory,
                   "read the journal files of that directory")
      ->type_name("DIR");
  verb->add_option("--written-by", question->written_by,
                   "the unit that the daemon runs in; what others have written "
                   "does not count (default: bpfgrantd.service)")
      ->type_name("UNIT");
}

}  // namespace bpfgrant::ctl
