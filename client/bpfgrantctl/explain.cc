// explain: why somebody may or may not have a program.

#include <grp.h>
#include <pwd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/bpfgrantctl/command.h"
#include "client/bpfgrantctl/json.h"
#include "client/bpfgrantctl/output.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::ctl {
namespace {

struct Question {
  std::string program;
  std::optional<std::string> user;
  std::optional<uint32_t> uid, gid, pid;
  std::vector<uint32_t> groups;
  // Of somebody made up, beside the user.
  std::string unit, cgroup, label, executable, sha256, fsverity;
  bool matrix = false;

  bool says_more() const {
    return !(unit + cgroup + label + executable + sha256 + fsverity).empty();
  }
};

// Where systemd puts a unit that says nothing else.
constexpr char kUsualSlice[] = "/system.slice/";

// The groups that a login of that user has. The daemon is not asked: it has no
// name service, and takes numbers.
absl::StatusOr<v1::Subject> LookUp(const std::string& user) {
  const passwd* found = getpwnam(user.c_str());
  if (found == nullptr) {
    return UsageError(absl::StrCat("no user '", user, "' on this machine"));
  }
  v1::Subject subject;
  subject.set_uid(found->pw_uid);
  subject.set_gid(found->pw_gid);
  const gid_t primary = found->pw_gid;
  std::vector<gid_t> groups(64);
  int count = static_cast<int>(groups.size());
  while (getgrouplist(user.c_str(), primary, groups.data(), &count) < 0) {
    // It says how many there are; they may be more by the next time.
    groups.resize(
        std::max<size_t>(groups.size() * 2, static_cast<size_t>(count)));
    count = static_cast<int>(groups.size());
  }
  for (int i = 0; i < count; ++i) {
    if (groups[i] != primary) subject.add_group(groups[i]);
  }
  return subject;
}

void AddFacts(const Question& question, v1::Subject& subject) {
  subject.set_cgroup(question.unit.empty()
                         ? question.cgroup
                         : absl::StrCat(kUsualSlice, question.unit));
  subject.set_label(question.label);
  subject.set_executable(question.executable);
  subject.set_sha256(question.sha256);
  subject.set_fsverity(question.fsverity);
}

absl::StatusOr<v1::ExplainRequest> MakeRequest(const Question& question) {
  v1::ExplainRequest request;
  request.set_program(question.program);
  if (question.user.has_value()) {
    const auto subject = LookUp(*question.user);
    if (!subject.ok()) return subject.status();
    *request.mutable_subject() = *subject;
  } else if (question.uid.has_value()) {
    // No guess: to leave the gid at 0 would be to ask about root's group.
    if (!question.gid.has_value()) {
      return UsageError("--uid needs --gid; or name the user with --user");
    }
    request.mutable_subject()->set_uid(*question.uid);
    request.mutable_subject()->set_gid(*question.gid);
    for (const uint32_t group : question.groups) {
      request.mutable_subject()->add_group(group);
    }
  } else if (question.says_more()) {
    return UsageError("say whose process it is, with --user or --uid");
  }
  if (question.pid.has_value()) request.set_pid(*question.pid);
  if (question.says_more()) AddFacts(question, *request.mutable_subject());
  return request;
}

// The rules about the program, in the order in which they are asked.
void PrintConsulted(const v1::ExplainReply& reply) {
  if (reply.consulted().empty()) return;
  std::printf("\n");
  Table table({"RULE", "PLACE", "EFFECT", "MATCHES", "BECAUSE"});
  for (const v1::ConsultedRule& rule : reply.consulted()) {
    const std::string effect = rule.observe() ? "observe"
                               : rule.deny()  ? "deny"
                                              : "allow";
    table.Add({rule.rule(), absl::StrCat(rule.file(), ":", rule.line()), effect,
               YesNo(rule.matches()), rule.why()});
  }
  table.Print();
}

void Print(const v1::ExplainReply& reply) {
  const v1::Verdict& verdict = reply.verdict();
  std::printf("%s\n", Paint(verdict.allowed() ? Style::kGood : Style::kBad,
                            Escape(reply.sentence()))
                          .c_str());
  for (const std::string& amount : reply.amount()) {
    std::printf("%s\n", Escape(amount).c_str());
  }
  if (!verdict.allowed()) {
    std::printf("reason: %s. %s\n", ReasonName(verdict.reason()).c_str(),
                std::string(NextStep(verdict.reason())).c_str());
  }
  PrintConsulted(reply);
}

std::string WhatItSays(const v1::Verdict& verdict) {
  return verdict.allowed()        ? "allow"
         : verdict.rule().empty() ? "deny, by default"
                                  : "deny";
}

// The daemon has no name service: "user 33" is all that it says.
std::string WithName(const std::string& who) {
  uint32_t uid = 0;
  if (!absl::StartsWith(who, "user ") ||
      !absl::SimpleAtoi(who.substr(sizeof("user ") - 1), &uid)) {
    return who;
  }
  const std::string name = UserName(uid);
  return name.empty() ? who : absl::StrCat(who, " (", name, ")");
}

absl::StatusOr<int> PrintMatrix(const Settings& settings) {
  auto connection = Connect(settings);
  if (!connection.ok()) return connection.status();
  const auto reply = connection->Matrix();
  if (!reply.ok()) return reply.status();
  if (settings.json) {
    const absl::Status printed = PrintJson(*reply);
    return printed.ok() ? absl::StatusOr<int>(kOk) : printed;
  }
  Table table({"WHO", "PROGRAM", "ANSWER", "RULE", "ONLY IF"});
  for (const v1::MatrixCell& cell : reply->cell()) {
    const v1::Verdict& verdict = cell.verdict();
    table.Add({WithName(cell.subject()), cell.program(),
               Cell(WhatItSays(verdict),
                    verdict.allowed() ? Style::kGood : Style::kBad),
               verdict.rule(), cell.condition()});
  }
  table.Print();
  return kOk;
}

absl::StatusOr<int> Explain(const Settings& settings,
                            const Question& question) {
  if (question.matrix) return PrintMatrix(settings);
  if (question.program.empty()) {
    return UsageError("name a program, or ask for --matrix");
  }
  const auto request = MakeRequest(question);
  if (!request.ok()) return request.status();
  auto connection = Connect(settings);
  if (!connection.ok()) return connection.status();
  const auto reply = connection->Explain(*request);
  if (!reply.ok()) return reply.status();
  if (settings.json) {
    const absl::Status printed = PrintJson(*reply);
    if (!printed.ok()) return printed;
  } else {
    Print(*reply);
  }
  return reply->verdict().allowed() ? kOk : kRefused;
}

// Where somebody made up runs, and what.
void AddFactOptions(CLI::App& verb, Question& question, CLI::Option* pid) {
  const auto add = [&](const char* option, std::string& value, const char* type,
                       const char* what) {
    return verb.add_option(option, value, what)
        ->type_name(type)
        ->check(CheckText)
        ->excludes(pid);
  };
  CLI::Option* cgroup =
      add("--cgroup", question.cgroup, "PATH", "that runs in this cgroup");
  add("--unit", question.unit, "UNIT", "that runs in /system.slice/UNIT")
      ->excludes(cgroup);
  add("--label", question.label, "LABEL", "with this security label");
  add("--executable", question.executable, "PATH", "that executes this file");
  add("--sha256", question.sha256, "DIGEST",
      "whose executable has this digest");
  add("--fsverity", question.fsverity, "DIGEST",
      "whose executable has this fs-verity digest");
}

}  // namespace

void AddExplain(CLI::App& app, Command& command) {
  const auto question = std::make_shared<Question>();
  CLI::App* verb = AddVerb(
      app, command, "explain",
      "Why you, or (for administrators) somebody else, may have a program or "
      "not",
      [question](const Settings& settings) {
        return Explain(settings, *question);
      });
  CLI::Option* name = verb->add_option("NAME", question->program, "the program")
                          ->check(CheckText);
  CLI::Option* user =
      verb->add_option("--user", question->user, "by name, with all groups")
          ->type_name("USER");
  CLI::Option* uid = verb->add_option("--uid", question->uid, "by numbers")
                         ->type_name("N")
                         ->excludes(user);
  verb->add_option("--gid", question->gid, "the primary group")
      ->type_name("N")
      ->needs(uid);
  verb->add_option("--group", question->groups,
                   "a supplementary group; may be given more than once")
      ->type_name("N")
      ->allow_extra_args(false)
      ->needs(uid);
  CLI::Option* pid =
      verb->add_option("--pid", question->pid, "a process that runs")
          ->type_name("N")
          ->excludes(user)
          ->excludes(uid);
  AddFactOptions(*verb, *question, pid);
  verb->add_flag("--matrix", question->matrix,
                 "every program by every user and group of the policy")
      ->excludes(name)
      ->excludes(pid)
      ->excludes(user)
      ->excludes(uid);
}

}  // namespace bpfgrant::ctl
