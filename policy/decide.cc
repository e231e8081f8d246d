#include <algorithm>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "bpfgrant/daemon/loader.pb.h"
#include "bpfgrant/v1/messages.pb.h"
#include "policy/policy.h"

namespace bpfgrant::policy {

using daemon::CompiledRule;

Rules::Rules(absl::Span<const CompiledRule> rules)
    : rules_(rules.begin(), rules.end()) {
  // That a DENY overrides must not depend on how somebody sorted them.
  std::stable_partition(rules_.begin(), rules_.end(),
                        [](const Rule& rule) { return rule.source().deny(); });
}

v1::Verdict Rules::VerdictOf(const Rule& rule) {
  const CompiledRule& source = rule.source();
  v1::Verdict verdict;
  verdict.set_allowed(!source.deny());
  verdict.set_rule(source.name());
  verdict.set_file(source.file());
  verdict.set_line(source.line());
  if (source.deny()) {
    verdict.set_reason(v1::REASON_DENIED_BY_RULE);
  } else {
    verdict.set_quota(source.quota());
    verdict.set_trusted(source.trusted());
  }
  return verdict;
}

v1::Verdict Rules::DefaultVerdict() {
  v1::Verdict verdict;
  verdict.set_reason(v1::REASON_DENIED_BY_DEFAULT);
  return verdict;
}

v1::Verdict Rules::Decide(const Subject& subject,
                          std::string_view program) const {
  const CompiledRule* observed = nullptr;
  for (const Rule& rule : rules_) {
    if (!rule.decides() && observed != nullptr) continue;
    if (!rule.IsAbout(program) || !rule.IsFor(subject)) continue;
    if (!rule.decides()) {
      observed = &rule.source();
      continue;
    }
    v1::Verdict verdict = VerdictOf(rule);
    if (verdict.allowed() && observed != nullptr) {
      verdict.set_observed_rule(observed->name());
      verdict.set_observed_file(observed->file());
      verdict.set_observed_line(observed->line());
    }
    return verdict;
  }
  return DefaultVerdict();
}

std::vector<v1::ConsultedRule> Rules::Consult(const Subject& subject,
                                              std::string_view program) const {
  std::vector<v1::ConsultedRule> consulted;
  for (const Rule& rule : rules_) {
    if (!rule.IsAbout(program)) continue;
    v1::ConsultedRule& told = consulted.emplace_back();
    told.set_rule(rule.source().name());
    told.set_file(rule.source().file());
    told.set_line(rule.source().line());
    told.set_deny(rule.source().deny());
    told.set_observe(rule.source().observe());
    told.set_matches(rule.IsFor(subject));
    told.set_why(rule.WhyNot(subject));
  }
  return consulted;
}

std::string DescribeVerdict(const v1::Verdict& verdict) {
  if (verdict.rule().empty()) return "no rule allows it";
  return absl::StrCat("rule '", verdict.rule(), "' (", verdict.file(), ":",
                      verdict.line(), ")");
}

}  // namespace bpfgrant::policy
