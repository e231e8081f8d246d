#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "bpfgrant/daemon/loader.pb.h"
#include "bpfgrant/v1/policy.pb.h"
#include "policy/names.h"
#include "policy/narrowing.h"
#include "policy/policy.h"
#include "proto/text/text_file.h"
#include "proto/wire/limits.h"

namespace bpfgrant::policy {
namespace {

using daemon::CompiledRule;

constexpr std::string_view kRuleField = "rule";

bool IsDecimal(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isdigit(c);
  });
}

// Compiles one rule of one file.
class RuleCompiler {
 public:
  RuleCompiler(const TextFile& file, int index, const v1::Rule& rule,
               const NameResolver& resolver)
      : file_(file), index_(index), rule_(rule), resolver_(resolver) {}

  absl::StatusOr<CompiledRule> Run() {
    if (rule_.name().empty()) return Complain("name", "a rule needs a name");
    if (rule_.name().size() > kMaxNameBytes) {
      return Complain("name", absl::StrCat("a rule's name has at most ",
                                           kMaxNameBytes, " bytes"));
    }
    compiled_.set_name(rule_.name());
    compiled_.set_file(file_.name());
    compiled_.set_line(
        static_cast<uint32_t>(file_.Where(kRuleField, index_).line));
    for (auto step :
         {&RuleCompiler::CompileEffect, &RuleCompiler::CompileUsers,
          &RuleCompiler::CompileFacts, &RuleCompiler::CompilePrograms,
          &RuleCompiler::CompileParameters}) {
      const absl::Status status = (this->*step)();
      if (!status.ok()) return status;
    }
    return std::move(compiled_);
  }

 private:
  absl::Status CompileEffect() {
    switch (rule_.effect()) {
      case v1::Rule::ALLOW:
        if (rule_.quota().grants() == 0) {
          return Complain("quota", Of("is ALLOW and needs a quota of at least "
                                      "one grant"));
        }
        for (const v1::Amounts* amounts :
             {&rule_.quota().user(), &rule_.quota().unit(),
              &rule_.quota().total()}) {
          if (amounts->acquires_burst() > 0 &&
              amounts->acquires_per_second() == 0) {
            return Complain("quota", Of("has acquires_burst without "
                                        "acquires_per_second"));
          }
        }
        if (rule_.observe()) {
          return Complain("observe", Of("is ALLOW: only a DENY can observe"));
        }
        compiled_.set_quota(rule_.quota().grants());
        *compiled_.mutable_amounts() = rule_.quota();
        compiled_.set_trusted(rule_.trusted());
        return absl::OkStatus();
      case v1::Rule::DENY:
        if (rule_.has_quota()) {
          return Complain("quota", Of("is DENY and takes no quota"));
        }
        if (rule_.trusted()) {
          return Complain("trusted", Of("is DENY and trusts nobody"));
        }
        compiled_.set_deny(true);
        compiled_.set_observe(rule_.observe());
        return absl::OkStatus();
      default:
        return Complain("effect", Of("needs an effect, ALLOW or DENY"));
    }
  }

  absl::Status CompileUsers() {
    if (rule_.everyone()) {
      if (rule_.user_size() > 0 || rule_.group_size() > 0) {
        return Complain("everyone",
                        Of("is for everyone: users or groups beside that say "
                           "nothing"));
      }
      compiled_.set_everyone(true);
      return absl::OkStatus();
    }
    if (rule_.user_size() + rule_.group_size() + rule_.unit_size() +
            rule_.slice_size() + rule_.cgroup_size() + rule_.label_size() +
            rule_.executable_size() ==
        0) {
      return Complain("name", Of("is for nobody: it needs user, group, unit, "
                                 "slice, cgroup, label, executable or "
                                 "everyone"));
    }
    for (int i = 0; i < rule_.user_size(); ++i) {
      const std::string& name = rule_.user(i);
      const absl::StatusOr<uint32_t> uid = Number(
          name, [&] { return resolver_.User(name); }, "user");
      if (!uid.ok())
        return Complain("user", std::string(uid.status().message()), i);
      compiled_.add_uid(*uid);
    }
    for (int i = 0; i < rule_.group_size(); ++i) {
      const std::string& name = rule_.group(i);
      const absl::StatusOr<uint32_t> gid = Number(
          name, [&] { return resolver_.Group(name); }, "group");
      if (!gid.ok())
        return Complain("group", std::string(gid.status().message()), i);
      compiled_.add_gid(*gid);
    }
    return absl::OkStatus();
  }

  absl::Status CompileFacts() {
    *compiled_.mutable_unit() = rule_.unit();
    *compiled_.mutable_slice() = rule_.slice();
    *compiled_.mutable_cgroup() = rule_.cgroup();
    *compiled_.mutable_label() = rule_.label();
    *compiled_.mutable_executable() = rule_.executable();
    for (const absl::Status& judged :
         {Judge("unit", rule_.unit(), JudgeUnit),
          Judge("slice", rule_.slice(), JudgeSlice),
          Judge("cgroup", rule_.cgroup(), JudgeCgroup),
          Judge("label", rule_.label(), JudgeLabel),
          Judge("executable", rule_.executable(), JudgeExecutable)}) {
      if (!judged.ok()) return judged;
    }
    return absl::OkStatus();
  }

  absl::Status CompilePrograms() {
    if (rule_.program_size() == 0 && rule_.tag_size() == 0) {
      return Complain("name",
                      Of("is about nothing: it needs a program or a tag"));
    }
    *compiled_.mutable_program() = rule_.program();
    *compiled_.mutable_tag() = rule_.tag();
    const absl::Status judged = Judge("program", rule_.program(), JudgeProgram);
    return judged.ok() ? Judge("tag", rule_.tag(), JudgeTag) : judged;
  }

  // Complains of the first of `values` with which something is wrong.
  template <typename Values, typename JudgeOne>
  absl::Status Judge(std::string_view field, const Values& values,
                     JudgeOne judge) const {
    for (int i = 0; i < values.size(); ++i) {
      const std::string wrong = judge(values.Get(i));
      if (!wrong.empty()) return Complain(field, Of(wrong), i);
    }
    return absl::OkStatus();
  }

  absl::Status CompileParameters() {
    return CompileNarrowings(file_, index_, rule_, compiled_);
  }

  // What `name` is a number or a name of.
  template <typename Resolve>
  absl::StatusOr<uint32_t> Number(const std::string& name, Resolve resolve,
                                  const std::string& kind) const {
    uint32_t number = 0;
    if (IsDecimal(name)) {
      // The largest number is the kernel's "no such id" (setreuid(2)).
      if (absl::SimpleAtoi(name, &number) && number != UINT32_MAX) {
        return number;
      }
      return absl::OutOfRangeError(Of(
          absl::StrCat("names ", kind, " ", name, ": no number of a ", kind)));
    }
    const absl::StatusOr<uint32_t> resolved = resolve();
    if (resolved.ok()) return *resolved;
    if (absl::IsNotFound(resolved.status())) {
      return absl::NotFoundError(Of(
          absl::StrCat("names ", kind, " '", name, "', which does not exist")));
    }
    return absl::UnknownError(Of(absl::StrCat("names ", kind, " '", name,
                                              "', which could not be "
                                              "looked up: ",
                                              resolved.status().message())));
  }

  std::string Of(const std::string& what) const {
    return absl::StrCat("rule '", rule_.name(), "' ", what);
  }

  // At `field`, or at the rule where that is absent.
  absl::Status Complain(std::string_view field, std::string_view what,
                        int element = -1) const {
    return file_.Complain(file_.Where(kRuleField, index_, field, element),
                          what);
  }

  const TextFile& file_;
  const int index_;
  const v1::Rule& rule_;
  const NameResolver& resolver_;
  CompiledRule compiled_;
};

}  // namespace

absl::StatusOr<std::vector<CompiledRule>> Compile(
    absl::Span<const PolicyText> texts, const NameResolver& resolver) {
  std::vector<CompiledRule> rules;
  std::map<std::string, std::string> places;  // of the rules, by name
  for (const PolicyText& text : texts) {
    TextFile file(text.file);
    v1::Policy policy;
    const absl::Status parsed = file.Parse(text.bytes, policy);
    if (!parsed.ok()) return parsed;
    for (int i = 0; i < policy.rule_size(); ++i) {
      absl::StatusOr<CompiledRule> rule =
          RuleCompiler(file, i, policy.rule(i), resolver).Run();
      if (!rule.ok()) return rule.status();
      const Place place = file.Where(kRuleField, i, "name");
      const auto [earlier, added] = places.emplace(
          rule->name(),
          absl::StrCat(text.file, ":", place.line, ":", place.column));
      if (!added) {
        return file.Complain(
            place,
            absl::StrCat("rule '", rule->name(),
                         "' has its name from the one at ", earlier->second));
      }
      rules.push_back(*std::move(rule));
    }
  }
  std::stable_partition(rules.begin(), rules.end(),
                        [](const CompiledRule& rule) { return rule.deny(); });
  return rules;
}

}  // namespace bpfgrant::policy
