// What is charged to the amounts of rules' quotas: of each user under a rule,
// of each systemd unit, and of all together.
//
// Knows only what those amounts limit; the number of grants that every rule has
// for each user is the ledger's.

#ifndef DAEMON_BROKER_CHARGES_H_
#define DAEMON_BROKER_CHARGES_H_

#include <cstdint>
#include <string>
#include <tuple>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "bpfgrant/v1/messages.pb.h"
#include "bpfgrant/v1/policy.pb.h"
#include "daemon/broker/allowance.h"
#include "policy/policy.h"

namespace bpfgrant::broker {

class Charges {
 public:
  enum class Rate { kAcquires, kLoads };

  // The rules in force. What was charged to others is forgotten: the caller
  // charges anew all that counts.
  void SetRules(const policy::Rules& rules);
  // Whether any rule has such amounts.
  bool any() const { return !rules_.empty(); }

  // One grant under `grant.rule()`, with so much map memory.
  void Add(const v1::GrantInfo& grant, uint64_t map_bytes);
  void Remove(const v1::GrantInfo& grant, uint64_t map_bytes);

  // OK: another such grant fits. REASON_QUOTA, with what is used up.
  absl::Status CheckRoom(const v1::GrantInfo& grant, uint64_t map_bytes) const;
  // What counts to the same accounts by now: "uid 7 has 3 of 8 grants".
  std::vector<std::string> Describe(const v1::GrantInfo& grant) const;
  // Takes one of what may be done so often, or nothing: REASON_RATE.
  absl::Status Spend(const v1::GrantInfo& grant, Rate rate,
                     Allowance::Clock::time_point now);

 private:
  enum class Scope { kUser, kUnit, kTotal };
  // Rule, scope, and whose it is: a number, a unit's name, nothing. Those
  // outside any unit are one.
  using Account = std::tuple<std::string, Scope, std::string>;
  struct Charged {
    uint32_t grants = 0;
    uint64_t map_bytes = 0;
    absl::flat_hash_map<uint64_t, uint32_t> grants_of_session;
  };
  using Visit =
      absl::FunctionRef<absl::Status(const Account&, const v1::Amounts&)>;

  // Calls `visit` for each account of the grant's whose amounts the rule
  // limits, until one objects.
  absl::Status ForEach(const v1::GrantInfo& grant, Visit visit) const;
  static std::string UseOf(const Account& account, uint64_t used,
                           uint64_t limit, const char* what);
  const Charged& ChargedTo(const Account& account) const;
  absl::Status CheckAccount(const Account& account, const v1::Amounts& amounts,
                            const v1::GrantInfo& grant,
                            uint64_t map_bytes) const;
  Allowance& AllowanceOf(const Account& account, const v1::Amounts& amounts,
                         Rate rate, Allowance::Clock::time_point now);
  void ForgetTheRested(Allowance::Clock::time_point now);

  absl::flat_hash_map<std::string, v1::Quota> rules_;  // those with amounts
  absl::flat_hash_map<Account, Charged> charged_;
  absl::flat_hash_map<std::pair<Account, Rate>, Allowance> allowances_;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_CHARGES_H_
