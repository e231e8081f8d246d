#include "daemon/broker/charges.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::broker {
namespace {

// What there are amounts of, in words.
constexpr char kGrants[] = "grants";
constexpr char kSessions[] = "sessions with grants";
constexpr char kMapBytes[] = "bytes of map memory";

// Allowances that are remembered before those that have rested are looked for.
constexpr size_t kManyAllowances = 4096;
constexpr double kSecondsPerMinute = 60;

bool HasAmounts(const v1::Quota& quota) {
  return quota.has_user() || quota.has_unit() || quota.has_total();
}

uint32_t LimitOf(const v1::Amounts& amounts, Charges::Rate rate) {
  return rate == Charges::Rate::kAcquires ? amounts.acquires_per_second()
                                          : amounts.loads_per_minute();
}

}  // namespace

void Charges::SetRules(const policy::Rules& rules) {
  rules_.clear();
  charged_.clear();
  for (const policy::Rule& rule : rules.rules()) {
    const daemon::CompiledRule& source = rule.source();
    if (HasAmounts(source.amounts())) {
      rules_.emplace(source.name(), source.amounts());
    }
  }
  absl::erase_if(allowances_, [this](const auto& entry) {
    return !rules_.contains(std::get<0>(entry.first.first));
  });
}

absl::Status Charges::ForEach(const v1::GrantInfo& grant, Visit visit) const {
  const auto rule = rules_.find(grant.rule());
  if (rule == rules_.end()) return absl::OkStatus();
  const v1::Quota& quota = rule->second;
  absl::Status status;
  if (quota.has_user()) {
    status = visit({grant.rule(), Scope::kUser, absl::StrCat(grant.uid())},
                   quota.user());
  }
  if (status.ok() && quota.has_unit()) {
    status = visit({grant.rule(), Scope::kUnit, grant.unit()}, quota.unit());
  }
  if (status.ok() && quota.has_total()) {
    status = visit({grant.rule(), Scope::kTotal, ""}, quota.total());
  }
  return status;
}

void Charges::Add(const v1::GrantInfo& grant, uint64_t map_bytes) {
  ForEach(grant, [&](const Account& account, const v1::Amounts&) {
    Charged& charged = charged_[account];
    ++charged.grants;
    charged.map_bytes += map_bytes;
    ++charged.grants_of_session[grant.session()];
    return absl::OkStatus();
  }).IgnoreError();
}

void Charges::Remove(const v1::GrantInfo& grant, uint64_t map_bytes) {
  ForEach(grant, [&](const Account& account, const v1::Amounts&) {
    const auto found = charged_.find(account);
    Charged& charged = found->second;
    charged.map_bytes -= map_bytes;
    const auto session = charged.grants_of_session.find(grant.session());
    if (--session->second == 0) charged.grants_of_session.erase(session);
    if (--charged.grants == 0) charged_.erase(found);
    return absl::OkStatus();
  }).IgnoreError();
}

absl::Status Charges::CheckRoom(const v1::GrantInfo& grant,
                                uint64_t map_bytes) const {
  return ForEach(grant,
                 [&](const Account& account, const v1::Amounts& amounts) {
                   return CheckAccount(account, amounts, grant, map_bytes);
                 });
}

std::string Charges::UseOf(const Account& account, uint64_t used,
                           uint64_t limit, const char* what) {
  const auto& [rule, scope, who] = account;
  const std::string whose =
      scope == Scope::kUser    ? absl::StrCat("uid ", who, " has ")
      : scope == Scope::kTotal ? "there are "
      : who.empty()            ? "processes outside any unit have "
                               : absl::StrCat("unit '", who, "' has ");
  return absl::StrCat(whose, used, " of ", limit, " ", what);
}

const Charges::Charged& Charges::ChargedTo(const Account& account) const {
  static const Charged kNothing;
  const auto found = charged_.find(account);
  return found == charged_.end() ? kNothing : found->second;
}

std::vector<std::string> Charges::Describe(const v1::GrantInfo& grant) const {
  std::vector<std::string> uses;
  ForEach(grant, [&](const Account& account, const v1::Amounts& amounts) {
    const Charged& charged = ChargedTo(account);
    const auto add = [&](uint64_t used, uint64_t limit, const char* what) {
      if (limit > 0) uses.push_back(UseOf(account, used, limit, what));
    };
    add(charged.grants, amounts.grants(), kGrants);
    add(charged.grants_of_session.size(), amounts.sessions(), kSessions);
    add(charged.map_bytes, amounts.map_bytes(), kMapBytes);
    return absl::OkStatus();
  }).IgnoreError();
  return uses;
}

absl::Status Charges::CheckAccount(const Account& account,
                                   const v1::Amounts& amounts,
                                   const v1::GrantInfo& grant,
                                   uint64_t map_bytes) const {
  const Charged& charged = ChargedTo(account);
  const auto refuse = [&](uint64_t used, uint64_t limit, const char* what) {
    return Refuse(v1::REASON_QUOTA,
                  absl::StrCat(UseOf(account, used, limit, what),
                               " under rule '", std::get<0>(account), "'"));
  };
  if (amounts.grants() > 0 && charged.grants >= amounts.grants()) {
    return refuse(charged.grants, amounts.grants(), kGrants);
  }
  if (amounts.sessions() > 0 &&
      charged.grants_of_session.size() >= amounts.sessions() &&
      !charged.grants_of_session.contains(grant.session())) {
    return refuse(charged.grants_of_session.size(), amounts.sessions(),
                  kSessions);
  }
  if (amounts.map_bytes() > 0 &&
      (map_bytes > amounts.map_bytes() ||
       charged.map_bytes > amounts.map_bytes() - map_bytes)) {
    return refuse(charged.map_bytes, amounts.map_bytes(), kMapBytes);
  }
  return absl::OkStatus();
}

absl::Status Charges::Spend(const v1::GrantInfo& grant, Rate rate,
                            Allowance::Clock::time_point now) {
  ForgetTheRested(now);
  // First whether each has one left: a refusal takes nothing.
  absl::Status status = ForEach(grant, [&](const Account& account,
                                           const v1::Amounts& amounts) {
    const uint32_t limit = LimitOf(amounts, rate);
    if (limit == 0 || AllowanceOf(account, amounts, rate, now).Has(1, now)) {
      return absl::OkStatus();
    }
    return Refuse(
        v1::REASON_RATE,
        absl::StrCat("rule '", grant.rule(), "' allows ", limit,
                     rate == Rate::kAcquires
                         ? " acquires a second"
                         : " loads a minute that no ready instance serves",
                     std::get<1>(account) == Scope::kUser   ? " of a user"
                     : std::get<1>(account) == Scope::kUnit ? " of a unit"
                                                            : " in all"));
  });
  if (!status.ok()) return status;
  return ForEach(grant,
                 [&](const Account& account, const v1::Amounts& amounts) {
                   if (LimitOf(amounts, rate) > 0) {
                     AllowanceOf(account, amounts, rate, now).Take(1, now);
                   }
                   return absl::OkStatus();
                 });
}

Allowance& Charges::AllowanceOf(const Account& account,
                                const v1::Amounts& amounts, Rate rate,
                                Allowance::Clock::time_point now) {
  const double limit = LimitOf(amounts, rate);
  const bool acquires = rate == Rate::kAcquires;
  const double burst = acquires && amounts.acquires_burst() > 0
                           ? amounts.acquires_burst()
                           : limit;
  Allowance& allowance =
      allowances_
          .try_emplace({account, rate}, burst,
                       acquires ? limit : limit / kSecondsPerMinute, now)
          .first->second;
  // A reload may have changed the rule.
  allowance.SetLimits(burst, acquires ? limit : limit / kSecondsPerMinute, now);
  return allowance;
}

void Charges::ForgetTheRested(Allowance::Clock::time_point now) {
  if (allowances_.size() < kManyAllowances) return;
  absl::erase_if(allowances_,
                 [now](auto& entry) { return entry.second.IsFull(now); });
}

}  // namespace bpfgrant::broker
