// The policy: who may have which program, and how often.
//
// A pure library: no system call, no clock, no libbpf. It is given texts and
// facts, and gives verdicts.

#ifndef POLICY_POLICY_H_
#define POLICY_POLICY_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "bpfgrant/daemon/loader.pb.h"
#include "bpfgrant/v1/messages.pb.h"
#include "policy/rule.h"
#include "policy/subject.h"

namespace bpfgrant::policy {

// One file of a policy directory, as it was read.
struct PolicyText {
  std::string file;  // as messages should call it
  std::string bytes;
};

// Turns names into numbers; asked at compile time only.
class NameResolver {
 public:
  virtual ~NameResolver() = default;
  // kNotFound: no such user (group).
  virtual absl::StatusOr<uid_t> User(std::string_view name) const = 0;
  virtual absl::StatusOr<gid_t> Group(std::string_view name) const = 0;
};

// Compiles the files, in the order given, into rules in order of evaluation:
// DENY before ALLOW, each in the order of the files. A user or group written in
// digits is a number, anything else a name for `resolver`. The first complaint
// ends it: REASON_FILE_INVALID, "file:line:column: what". Refused are: no name,
// a name used twice (both places are told), no effect, a rule for nobody or
// about nothing, `everyone` beside users or groups, unknown users and groups,
// names that no program, tag, unit, slice, cgroup or executable can have, quota
// or trust on a DENY, an ALLOW that observes, an ALLOW without a quota of at
// least 1.
absl::StatusOr<std::vector<daemon::CompiledRule>> Compile(
    absl::Span<const PolicyText> texts, const NameResolver& resolver);

// An immutable set of rules. Deny overrides: the first DENY that matches
// decides; else the first ALLOW that matches; else the default, deny. So the
// order of files and rules counts among several ALLOWs that match, where it
// says under which quota and trust, and whether it is allowed never hangs on
// it. Root is a user like any other.
//
// A DENY that only observes decides nothing; the first one that matches is told
// in a verdict that allows.
class Rules {
 public:
  Rules() = default;
  explicit Rules(absl::Span<const daemon::CompiledRule> rules);

  // Does not look at how much is in use: the quota is in the verdict.
  v1::Verdict Decide(const Subject& subject, std::string_view program) const;

  // Whether it hangs on what `subject` executes if it may have `program`.
  bool AskForExecutable(const Subject& subject, std::string_view program) const;
  // The same of any program.
  bool AskForExecutable(const Subject& subject) const;
  // What of it the rules for the user of `subject` ask for, whatever the
  // program.
  ExecutableKinds KindsOfExecutable(const Subject& subject) const;

  // The rules about `program`, in the order of evaluation, and why each is for
  // `subject` or not.
  std::vector<v1::ConsultedRule> Consult(const Subject& subject,
                                         std::string_view program) const;

  // What each user and group that some rule names, and everybody else, may
  // have of `programs`: somebody who is that and nothing else. Where rules want
  // more than a user there is an entry for each, in the order in which they
  // decide. At most about `bytes` of it, from `after` on.
  v1::MatrixReply Matrix(absl::Span<const std::string> programs, uint32_t after,
                         size_t bytes) const;

  // In the order of evaluation.
  const std::vector<Rule>& rules() const { return rules_; }
  size_t size() const { return rules_.size(); }

 private:
  // `observed` is the rule that would have denied it; nullptr: none would.
  static v1::Verdict VerdictOf(const Rule& rule, const Rule* observed);
  static v1::Verdict DefaultVerdict();
  void AddCells(const Subject& subject, const v1::MatrixCell& like,
                v1::MatrixReply& reply) const;

  std::vector<Rule> rules_;  // DENY before ALLOW
  // Of the rules those about each program that some rule names, and those that
  // may be about others.
  absl::flat_hash_map<std::string, std::vector<uint32_t>> by_name_;
  std::vector<uint32_t> with_globs_;
  // Those that name executables: few, and most often none.
  std::vector<uint32_t> with_executables_;
};

// "rule 'x' (file:line)" or "no rule allows it".
std::string DescribeVerdict(const v1::Verdict& verdict);

}  // namespace bpfgrant::policy

#endif  // POLICY_POLICY_H_
