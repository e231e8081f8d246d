// suggest: from what was denied lately, the rules that would allow it.

#include <cstdio>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/bpfgrantctl/command.h"
#include "client/bpfgrantctl/json.h"
#include "client/bpfgrantctl/output.h"
#include "policy/policy.h"

namespace bpfgrant::ctl {
namespace {

std::string Who(const v1::Denial& denial) {
  const std::string name = UserName(denial.subject().uid());
  return name.empty() ? absl::StrCat(denial.subject().uid()) : name;
}

// A rule's name from what it is for, and unique among those printed.
std::string NameFor(const v1::Denial& denial, std::set<std::string>& used) {
  std::string name =
      absl::StrCat("allow-", denial.program(), "-for-", denial.subject().uid());
  for (int i = 2; !used.insert(name).second; ++i) {
    name = absl::StrCat("allow-", denial.program(), "-for-",
                        denial.subject().uid(), "-", i);
  }
  return name;
}

std::string Line(const std::string& field, const std::string& value) {
  return absl::StrCat("  ", field, ": \"", absl::CEscape(value), "\"\n");
}

// Where it was asked from, exactly.
std::string LocationLines(const v1::Denial& denial) {
  const std::string& cgroup = denial.subject().cgroup();
  std::string lines;
  if (!denial.unit().empty()) {
    if (absl::EndsWith(denial.unit(), ".scope")) {
      lines =
          "  # A scope ends with what it was made for; the next one has "
          "another name.\n";
    }
    lines += Line("unit", denial.unit());
  } else if (cgroup.size() > 1) {
    lines = Line("cgroup", cgroup);
  }
  return lines;
}

std::string Heading(const v1::Denial& denial) {
  return Escape(absl::StrCat(
      "# ", Who(denial), " asked for '", denial.program(), "' ",
      Count(denial.count(), "time"), ", last on ",
      LocalTime(denial.last_unix_ms()), ": ",
      denial.verdict().allowed()
          ? absl::StrCat("allowed; rule '", denial.verdict().observed_rule(),
                         "' (", denial.verdict().observed_file(), ":",
                         denial.verdict().observed_line(),
                         ") observes and would deny it")
          : policy::DescribeVerdict(denial.verdict())));
}

std::string RuleFor(const v1::Denial& denial, std::set<std::string>& used) {
  const v1::Subject& subject = denial.subject();
  std::string rule = absl::StrCat(
      "rule {\n", Line("name", NameFor(denial, used)), "  effect: ALLOW\n",
      Line("user", absl::StrCat(subject.uid())), LocationLines(denial));
  if (!subject.label().empty()) rule += Line("label", subject.label());
  if (!subject.executable().empty()) {
    absl::StrAppend(&rule, "  executable {\n  ",
                    Line("path", subject.executable()), "  }\n");
  }
  absl::StrAppend(&rule, Line("program", denial.program()),
                  "  quota { grants: 1 }\n}\n");
  return rule;
}

void Print(const v1::DenialsReply& reply) {
  std::set<std::string> used;
  int rules = 0;
  for (const v1::Denial& denial : reply.denial()) {
    std::printf("%s\n", Heading(denial).c_str());
    if (denial.verdict().reason() == v1::REASON_DENIED_BY_DEFAULT) {
      std::printf("%s", RuleFor(denial, used).c_str());
      ++rules;
    } else {
      std::printf(
          "# A DENY overrides every ALLOW: it is that rule that would "
          "have to change.\n");
    }
    std::printf("\n");
  }
  if (rules == 0) {
    std::printf("# There is nothing to suggest.\n");
    return;
  }
  std::printf(
      "# %s. Keep what is meant, in a file of the policy, and reload.\n",
      Count(static_cast<uint64_t>(rules), "rule").c_str());
}

absl::StatusOr<int> Suggest(const Settings& settings) {
  auto connection = Connect(settings);
  if (!connection.ok()) return connection.status();
  const auto reply = connection->Denials();
  if (!reply.ok()) return reply.status();
  if (settings.json) {
    const absl::Status printed = PrintJson(*reply);
    return printed.ok() ? absl::StatusOr<int>(kOk) : printed;
  }
  Print(*reply);
  return kOk;
}

}  // namespace

void AddSuggest(CLI::App& app, Command& command) {
  AddVerb(app, command, "suggest",
          "Rules that would allow what was denied lately; for administrators",
          Suggest);
}

}  // namespace bpfgrant::ctl
