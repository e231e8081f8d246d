#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "bpfgrant/daemon/loader.pb.h"
#include "bpfgrant/v1/messages.pb.h"
#include "policy/glob.h"
#include "policy/policy.h"

namespace bpfgrant::policy {

using daemon::CompiledRule;

Rules::Rules(absl::Span<const CompiledRule> rules)
    : rules_(rules.begin(), rules.end()) {
  // That a DENY overrides must not depend on how somebody sorted them.
  std::stable_partition(rules_.begin(), rules_.end(),
                        [](const Rule& rule) { return rule.deny(); });
  for (const Rule& rule : rules_) {
    for (const std::string& name : rule.source().program()) {
      if (!IsGlob(name)) by_name_[name];
    }
  }
  for (uint32_t i = 0; i < rules_.size(); ++i) {
    if (rules_[i].HasGlob()) with_globs_.push_back(i);
    for (auto& [name, about] : by_name_) {
      if (rules_[i].IsAbout(name)) about.push_back(i);
    }
    if (!rules_[i].source().executable().empty())
      with_executables_.push_back(i);
  }
}

bool Rules::AskForExecutable(const Subject& subject,
                             std::string_view program) const {
  return std::any_of(
      with_executables_.begin(), with_executables_.end(), [&](uint32_t i) {
        return rules_[i].IsAbout(program) && rules_[i].NamesUser(subject);
      });
}

bool Rules::AskForExecutable(const Subject& subject) const {
  return std::any_of(with_executables_.begin(), with_executables_.end(),
                     [&](uint32_t i) { return rules_[i].NamesUser(subject); });
}

ExecutableKinds Rules::KindsOfExecutable(const Subject& subject) const {
  ExecutableKinds kinds;
  for (const uint32_t i : with_executables_) {
    if (!rules_[i].NamesUser(subject)) continue;
    for (const v1::Executable& wanted : rules_[i].source().executable()) {
      kinds.path |= !wanted.path().empty();
      kinds.sha256 |= !wanted.sha256().empty();
      kinds.fsverity |= !wanted.fsverity().empty();
    }
  }
  return kinds;
}

v1::Verdict Rules::VerdictOf(const Rule& rule, const Rule* observed) {
  const CompiledRule& source = rule.source();
  v1::Verdict verdict;
  verdict.set_allowed(!source.deny());
  verdict.set_rule(source.name());
  verdict.set_file(source.file());
  verdict.set_line(source.line());
  if (source.deny()) {
    verdict.set_reason(v1::REASON_DENIED_BY_RULE);
    return verdict;
  }
  verdict.set_quota(source.quota());
  verdict.set_trusted(source.trusted());
  if (observed != nullptr) {
    verdict.set_observed_rule(observed->source().name());
    verdict.set_observed_file(observed->source().file());
    verdict.set_observed_line(observed->source().line());
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
  const auto named =
      by_name_.find(absl::string_view(program.data(), program.size()));
  const bool is_named = named != by_name_.end();
  const Rule* observed = nullptr;
  for (const uint32_t i : is_named ? named->second : with_globs_) {
    const Rule& rule = rules_[i];
    if (!rule.IsFor(subject)) continue;
    if (!is_named && !rule.IsAbout(program)) continue;
    if (rule.decides()) return VerdictOf(rule, observed);
    if (observed == nullptr) observed = &rule;
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
