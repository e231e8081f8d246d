// One rule, made ready to be asked often.

#ifndef POLICY_RULE_H_
#define POLICY_RULE_H_

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "bpfgrant/daemon/loader.pb.h"
#include "policy/glob.h"
#include "policy/subject.h"

namespace bpfgrant::policy {

class Rule {
 public:
  explicit Rule(const daemon::CompiledRule& source);

  const daemon::CompiledRule& source() const { return source_; }
  // Whether it allows or denies, as opposed to saying what it would.
  bool decides() const { return !observe_; }
  bool deny() const { return deny_; }

  bool IsAbout(std::string_view program) const {
    return programs_.Match(program);
  }
  // Whether it may be about programs that it does not name one by one.
  bool HasGlob() const { return programs_.has_globs(); }
  // Whether it is for `subject`. What is not known of the subject speaks
  // against it: that is no reason to allow, and none to do without a denial.
  bool IsFor(const Subject& subject) const {
    return NamesUser(subject) && (users_alone_ || Holds(subject));
  }
  // In words: of the first kind that does not match, or is not known, what the
  // subject has; empty if all matches.
  std::string WhyNot(const Subject& subject) const;

  // By users and groups alone.
  bool NamesUser(const Subject& subject) const;
  // All the other kinds: "unit nginx.service, label x"; empty: there is none.
  std::string Conditions() const;

 private:
  enum class Answer { kNo, kUnknown, kYes };
  // Something that can be named of a subject; nothing of it named is kYes.
  struct Kind {
    Answer (Rule::*check)(const Subject&) const;
    std::string (*describe)(const Subject&);
  };
  static const Kind kKinds[];

  Answer CheckUser(const Subject& subject) const;
  Answer CheckUnit(const Subject& subject) const;
  Answer CheckSlice(const Subject& subject) const;
  Answer CheckCgroup(const Subject& subject) const;
  Answer CheckLabel(const Subject& subject) const;
  Answer CheckExecutable(const Subject& subject) const;

  // Whether all kinds hold.
  bool Holds(const Subject& subject) const;

  // What most decisions look at stands together.
  std::vector<uid_t> uids_;  // ascending
  std::vector<gid_t> gids_;  // likewise
  bool deny_;
  bool observe_;
  bool users_alone_;  // it names no other kind
  Patterns programs_, units_, slices_, labels_;
  daemon::CompiledRule source_;
};

}  // namespace bpfgrant::policy

#endif  // POLICY_RULE_H_
