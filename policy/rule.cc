#include "policy/rule.h"

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace bpfgrant::policy {
namespace {

using daemon::CompiledRule;

template <typename Ids>
auto Sorted(const Ids& ids) {
  std::vector<uint32_t> sorted(ids.begin(), ids.end());
  std::sort(sorted.begin(), sorted.end());
  return sorted;
}

template <typename Id>
bool Has(const std::vector<Id>& sorted, Id id) {
  return std::binary_search(sorted.begin(), sorted.end(), id);
}

std::string DescribeUser(const Subject& subject) {
  return absl::StrCat(
      "its user is ", subject.uid, ", its group ", subject.gid,
      subject.groups.empty()
          ? ""
          : absl::StrCat(" and ", absl::StrJoin(subject.groups, ", ")));
}

std::string DescribeUnit(const Subject& subject) {
  if (!subject.location.has_value()) return "its unit is not known";
  const std::string& unit = subject.location->unit;
  return unit.empty() ? "it is in no unit of the system manager's"
                      : absl::StrCat("its unit is '", unit, "'");
}

std::string DescribeSlices(const Subject& subject) {
  if (!subject.location.has_value()) return "its slices are not known";
  const std::vector<std::string>& slices = subject.location->slices;
  return slices.empty()
             ? "it is in no slice"
             : absl::StrCat("its slices are ", absl::StrJoin(slices, ", "));
}

std::string DescribeCgroup(const Subject& subject) {
  if (!subject.location.has_value()) return "its cgroup is not known";
  return absl::StrCat("its cgroup is '", subject.location->cgroup, "'");
}

std::string DescribeLabel(const Subject& subject) {
  if (!subject.label.has_value()) return "its label is not known";
  return subject.label->empty()
             ? "it has no label"
             : absl::StrCat("its label is '", *subject.label, "'");
}

std::string DescribeExecutable(const Subject& subject) {
  const ExecutableFacts& facts = subject.executable;
  std::vector<std::string> known;
  if (facts.path.has_value()) known.push_back(*facts.path);
  if (facts.sha256.has_value()) known.push_back("sha256 " + *facts.sha256);
  if (facts.fsverity.has_value()) {
    known.push_back(facts.fsverity->empty() ? "no fs-verity digest"
                                            : "fs-verity " + *facts.fsverity);
  }
  std::string text = known.empty() ? "its executable is not known"
                                   : absl::StrCat("its executable is ",
                                                  absl::StrJoin(known, ", "));
  if (!facts.unknown.empty()) absl::StrAppend(&text, " (", facts.unknown, ")");
  return text;
}

std::string DescribeExecutable(const v1::Executable& executable) {
  std::vector<std::string> parts;
  for (const std::string& part :
       {executable.path(), executable.sha256(), executable.fsverity()}) {
    if (!part.empty()) parts.push_back(part);
  }
  return absl::StrJoin(parts, " ");
}

template <typename Strings>
void AddCondition(std::string_view kind, const Strings& values,
                  std::vector<std::string>& conditions) {
  if (values.empty()) return;
  conditions.push_back(
      absl::StrCat(std::string(kind), " ", absl::StrJoin(values, " or ")));
}

}  // namespace

const Rule::Kind Rule::kKinds[] = {
    {&Rule::CheckUser, DescribeUser},
    {&Rule::CheckUnit, DescribeUnit},
    {&Rule::CheckSlice, DescribeSlices},
    {&Rule::CheckCgroup, DescribeCgroup},
    {&Rule::CheckLabel, DescribeLabel},
    {&Rule::CheckExecutable,
     static_cast<std::string (*)(const Subject&)>(DescribeExecutable)},
};

Rule::Rule(const CompiledRule& source)
    : uids_(Sorted(source.uid())),
      gids_(Sorted(source.gid())),
      deny_(source.deny()),
      observe_(source.observe()),
      users_alone_(source.unit().empty() && source.slice().empty() &&
                   source.cgroup().empty() && source.label().empty() &&
                   source.executable().empty()),
      programs_(source.program()),
      units_(source.unit()),
      slices_(source.slice()),
      labels_(source.label()),
      source_(source) {}

bool Rule::NamesUser(const Subject& subject) const {
  if (uids_.empty() && gids_.empty()) return true;
  return Has(uids_, subject.uid) || Has(gids_, subject.gid) ||
         (!gids_.empty() &&
          std::any_of(subject.groups.begin(), subject.groups.end(),
                      [this](gid_t gid) { return Has(gids_, gid); }));
}

Rule::Answer Rule::CheckUser(const Subject& subject) const {
  return NamesUser(subject) ? Answer::kYes : Answer::kNo;
}

Rule::Answer Rule::CheckUnit(const Subject& subject) const {
  if (units_.empty()) return Answer::kYes;
  if (!subject.location.has_value()) return Answer::kUnknown;
  const std::string& unit = subject.location->unit;
  return !unit.empty() && units_.Match(unit) ? Answer::kYes : Answer::kNo;
}

Rule::Answer Rule::CheckSlice(const Subject& subject) const {
  if (slices_.empty()) return Answer::kYes;
  if (!subject.location.has_value()) return Answer::kUnknown;
  const std::vector<std::string>& slices = subject.location->slices;
  return std::any_of(
             slices.begin(), slices.end(),
             [this](const std::string& slice) { return slices_.Match(slice); })
             ? Answer::kYes
             : Answer::kNo;
}

Rule::Answer Rule::CheckCgroup(const Subject& subject) const {
  if (source_.cgroup().empty()) return Answer::kYes;
  if (!subject.location.has_value()) return Answer::kUnknown;
  const std::string& cgroup = subject.location->cgroup;
  return std::any_of(
             source_.cgroup().begin(), source_.cgroup().end(),
             [&](const std::string& top) { return IsWithin(cgroup, top); })
             ? Answer::kYes
             : Answer::kNo;
}

Rule::Answer Rule::CheckLabel(const Subject& subject) const {
  if (labels_.empty()) return Answer::kYes;
  if (!subject.label.has_value()) return Answer::kUnknown;
  return !subject.label->empty() && labels_.Match(*subject.label) ? Answer::kYes
                                                                  : Answer::kNo;
}

Rule::Answer Rule::CheckExecutable(const Subject& subject) const {
  if (source_.executable().empty()) return Answer::kYes;
  const ExecutableFacts& facts = subject.executable;
  Answer best = Answer::kNo;
  for (const v1::Executable& wanted : source_.executable()) {
    Answer worst = Answer::kYes;
    const auto compare = [&](const std::string& said,
                             const std::optional<std::string>& fact) {
      if (said.empty()) return;
      worst = std::min(worst, !fact.has_value() ? Answer::kUnknown
                              : *fact == said   ? Answer::kYes
                                                : Answer::kNo);
    };
    compare(wanted.path(), facts.path);
    compare(wanted.sha256(), facts.sha256);
    compare(wanted.fsverity(), facts.fsverity);
    best = std::max(best, worst);
  }
  return best;
}

bool Rule::Holds(const Subject& subject) const {
  bool unknown = false;
  for (const Kind& kind : kKinds) {
    const Answer answer = (this->*kind.check)(subject);
    if (answer == Answer::kNo) return false;
    unknown |= answer == Answer::kUnknown;
  }
  return !unknown || deny_;
}

std::string Rule::WhyNot(const Subject& subject) const {
  const Kind* unknown = nullptr;
  for (const Kind& kind : kKinds) {
    const Answer answer = (this->*kind.check)(subject);
    if (answer == Answer::kNo) return kind.describe(subject);
    if (answer == Answer::kUnknown && unknown == nullptr) unknown = &kind;
  }
  return unknown == nullptr ? "" : unknown->describe(subject);
}

std::string Rule::Conditions() const {
  std::vector<std::string> conditions;
  AddCondition("unit", source_.unit(), conditions);
  AddCondition("slice", source_.slice(), conditions);
  AddCondition("cgroup", source_.cgroup(), conditions);
  AddCondition("label", source_.label(), conditions);
  std::vector<std::string> executables;
  for (const v1::Executable& executable : source_.executable()) {
    executables.push_back(DescribeExecutable(executable));
  }
  AddCondition("executable", executables, conditions);
  return absl::StrJoin(conditions, ", ");
}

}  // namespace bpfgrant::policy
