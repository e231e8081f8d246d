#include <algorithm>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "bpfgrant/daemon/loader.pb.h"
#include "bpfgrant/v1/messages.pb.h"
#include "policy/policy.h"

namespace bpfgrant::policy {
namespace {

using daemon::CompiledRule;

bool IsFor(const CompiledRule& rule, const Subject& subject) {
  if (rule.everyone()) return true;
  if (std::find(rule.uid().begin(), rule.uid().end(), subject.uid) !=
      rule.uid().end()) {
    return true;
  }
  return std::any_of(rule.gid().begin(), rule.gid().end(), [&](gid_t gid) {
    return gid == subject.gid ||
           std::find(subject.groups.begin(), subject.groups.end(), gid) !=
               subject.groups.end();
  });
}

bool IsAbout(const CompiledRule& rule, std::string_view program) {
  return std::any_of(
      rule.program().begin(), rule.program().end(),
      [&](const std::string& name) { return name == "*" || name == program; });
}

v1::Verdict VerdictOf(const CompiledRule& rule) {
  v1::Verdict verdict;
  verdict.set_allowed(!rule.deny());
  verdict.set_rule(rule.name());
  verdict.set_file(rule.file());
  verdict.set_line(rule.line());
  if (rule.deny()) {
    verdict.set_reason(v1::REASON_DENIED_BY_RULE);
  } else {
    verdict.set_quota(rule.quota());
    verdict.set_trusted(rule.trusted());
  }
  return verdict;
}

}  // namespace

Rules::Rules(absl::Span<const CompiledRule> rules)
    : rules_(rules.begin(), rules.end()) {}

v1::Verdict Rules::Decide(const Subject& subject,
                          std::string_view program) const {
  // In one pass that ends at a DENY only: that a DENY overrides must not depend
  // on how somebody sorted the rules.
  const CompiledRule* allow = nullptr;
  for (const CompiledRule& rule : rules_) {
    if (allow != nullptr && !rule.deny()) continue;
    if (!IsAbout(rule, program) || !IsFor(rule, subject)) continue;
    if (rule.deny()) return VerdictOf(rule);
    allow = &rule;
  }
  if (allow != nullptr) return VerdictOf(*allow);
  v1::Verdict verdict;
  verdict.set_reason(v1::REASON_DENIED_BY_DEFAULT);
  return verdict;
}

std::string DescribeVerdict(const v1::Verdict& verdict) {
  if (verdict.rule().empty()) return "no rule allows it";
  return absl::StrCat("rule '", verdict.rule(), "' (", verdict.file(), ":",
                      verdict.line(), ")");
}

}  // namespace bpfgrant::policy
