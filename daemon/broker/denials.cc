#include "daemon/broker/denials.h"

#include <algorithm>
#include <string>
#include <utility>

#include "daemon/broker/subject.h"

namespace bpfgrant::broker {
namespace {

// Who asked for what, and which rule decided: all that makes two the same.
std::string KeyOf(const v1::Denial& denial) {
  v1::Denial key;
  *key.mutable_subject() = denial.subject();
  key.set_program(denial.program());
  key.mutable_verdict()->set_rule(denial.verdict().rule());
  key.mutable_verdict()->set_observed_rule(denial.verdict().observed_rule());
  return key.SerializeAsString();
}

}  // namespace

bool Denials::Add(const policy::Subject& subject, const std::string& program,
                  const v1::Verdict& verdict, int64_t now_unix_ms) {
  v1::Denial denial;
  *denial.mutable_subject() = ToMessage(subject);
  denial.mutable_subject()->clear_group();
  denial.set_program(program);
  *denial.mutable_verdict() = verdict;
  std::string key = KeyOf(denial);
  if (const auto known = by_key_.find(key); known != by_key_.end()) {
    v1::Denial& entry = denials_[known->second];
    entry.set_count(entry.count() + 1);
    entry.set_last_unix_ms(now_unix_ms);
    return false;
  }
  MakeRoom(subject.uid);
  if (subject.location.has_value()) denial.set_unit(subject.location->unit);
  denial.set_id(next_++);
  denial.set_count(1);
  denial.set_first_unix_ms(now_unix_ms);
  denial.set_last_unix_ms(now_unix_ms);
  by_key_.emplace(std::move(key), denial.id());
  ++of_user_[subject.uid];
  denials_.emplace(denial.id(), std::move(denial));
  return true;
}

void Denials::MakeRoom(uid_t uid) {
  const auto of_user = of_user_.find(uid);
  if (of_user != of_user_.end() && of_user->second >= kMostOfUser) {
    RemoveOldest([uid](uid_t user) { return user == uid; });
  } else if (denials_.size() >= kMost) {
    size_t most = 0;
    for (const auto& [user, count] : of_user_) most = std::max(most, count);
    RemoveOldest([&](uid_t user) { return of_user_[user] == most; });
  }
}

void Denials::RemoveOldest(absl::FunctionRef<bool(uid_t)> of) {
  const auto oldest = std::find_if(
      denials_.begin(), denials_.end(),
      [&](const auto& entry) { return of(entry.second.subject().uid()); });
  Remove(oldest->first);
}

void Denials::Remove(uint64_t id) {
  const auto found = denials_.find(id);
  by_key_.erase(KeyOf(found->second));
  const auto of_user = of_user_.find(found->second.subject().uid());
  if (--of_user->second == 0) of_user_.erase(of_user);
  denials_.erase(found);
}

void Denials::ForEach(uint64_t after,
                      absl::FunctionRef<bool(const v1::Denial&)> visit) const {
  for (auto at = denials_.upper_bound(after); at != denials_.end(); ++at) {
    if (!visit(at->second)) return;
  }
}

}  // namespace bpfgrant::broker
