#include "daemon/broker/charges.h"

#include <chrono>
#include <functional>
#include <string>

#include "gtest/gtest.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::broker {
namespace {

using Clock = Allowance::Clock;

class ChargesTest : public ::testing::Test {
 protected:
  // The rule "r" with such amounts is in force.
  void Set(const std::function<void(v1::Quota&)>& set) {
    daemon::CompiledRule rule;
    rule.set_name("r");
    set(*rule.mutable_amounts());
    charges_.SetRules(policy::Rules({rule}));
  }
  static v1::GrantInfo Grant(uint32_t uid, const std::string& unit = "",
                             uint64_t session = 1) {
    v1::GrantInfo grant;
    grant.set_rule("r");
    grant.set_uid(uid);
    grant.set_unit(unit);
    grant.set_session(session);
    return grant;
  }
  v1::Reason Room(const v1::GrantInfo& grant, uint64_t bytes = 0) {
    return ReasonOf(charges_.CheckRoom(grant, bytes));
  }
  v1::Reason Spend(const v1::GrantInfo& grant, Charges::Rate rate,
                   Clock::duration after = {}) {
    return ReasonOf(charges_.Spend(grant, rate, begin_ + after));
  }

  static constexpr v1::Reason kFits = v1::REASON_UNSPECIFIED;

  Charges charges_;
  const Clock::time_point begin_ = Clock::now();
};

TEST_F(ChargesTest, ARuleWithoutAmountsLimitsNothing) {
  Set([](v1::Quota& quota) { quota.set_grants(1); });
  EXPECT_FALSE(charges_.any());
  for (int i = 0; i < 10; ++i) charges_.Add(Grant(1), 1 << 30);
  EXPECT_EQ(Room(Grant(1), 1 << 30), kFits);
}

TEST_F(ChargesTest, GrantsOfAUserAUnitAndAll) {
  Set([](v1::Quota& quota) {
    quota.mutable_user()->set_grants(2);
    quota.mutable_unit()->set_grants(3);
    quota.mutable_total()->set_grants(4);
  });
  charges_.Add(Grant(1, "a.service"), 0);
  charges_.Add(Grant(1, "a.service"), 0);
  EXPECT_EQ(Room(Grant(1, "b.service")), v1::REASON_QUOTA);
  EXPECT_EQ(Room(Grant(2, "a.service")), kFits);
  charges_.Add(Grant(2, "a.service"), 0);
  EXPECT_EQ(Room(Grant(3, "a.service")), v1::REASON_QUOTA);
  EXPECT_EQ(Room(Grant(3, "b.service")), kFits);
  charges_.Add(Grant(3, "b.service"), 0);
  EXPECT_EQ(Room(Grant(4, "c.service")), v1::REASON_QUOTA);
  charges_.Remove(Grant(1, "a.service"), 0);
  EXPECT_EQ(Room(Grant(1, "c.service")), kFits);
}

TEST_F(ChargesTest, ThoseOutsideAnyUnitAreOne) {
  Set([](v1::Quota& quota) { quota.mutable_unit()->set_grants(1); });
  charges_.Add(Grant(1), 0);
  EXPECT_EQ(Room(Grant(2)), v1::REASON_QUOTA);
  EXPECT_EQ(Room(Grant(1, "a.service")), kFits);
}

TEST_F(ChargesTest, AnotherRulesGrantsDoNotCount) {
  Set([](v1::Quota& quota) { quota.mutable_total()->set_grants(1); });
  v1::GrantInfo other = Grant(1);
  other.set_rule("s");
  charges_.Add(other, 0);
  EXPECT_EQ(Room(other), kFits);
  EXPECT_EQ(Room(Grant(1)), kFits);
}

TEST_F(ChargesTest, SessionsWithGrants) {
  Set([](v1::Quota& quota) { quota.mutable_user()->set_sessions(2); });
  charges_.Add(Grant(1, "", 1), 0);
  charges_.Add(Grant(1, "", 2), 0);
  EXPECT_EQ(Room(Grant(1, "", 3)), v1::REASON_QUOTA);
  EXPECT_EQ(Room(Grant(1, "", 2)), kFits);
  charges_.Add(Grant(1, "", 2), 0);
  charges_.Remove(Grant(1, "", 2), 0);
  EXPECT_EQ(Room(Grant(1, "", 3)), v1::REASON_QUOTA);
  charges_.Remove(Grant(1, "", 2), 0);
  EXPECT_EQ(Room(Grant(1, "", 3)), kFits);
}

TEST_F(ChargesTest, MapMemory) {
  Set([](v1::Quota& quota) { quota.mutable_total()->set_map_bytes(100); });
  EXPECT_EQ(Room(Grant(1), 101), v1::REASON_QUOTA);
  EXPECT_EQ(Room(Grant(1), UINT64_MAX), v1::REASON_QUOTA);
  charges_.Add(Grant(1), 60);
  EXPECT_EQ(Room(Grant(2), 41), v1::REASON_QUOTA);
  EXPECT_EQ(Room(Grant(2), 40), kFits);
  charges_.Remove(Grant(1), 60);
  EXPECT_EQ(Room(Grant(2), 100), kFits);
}

TEST_F(ChargesTest, AcquiresASecondWithABurst) {
  Set([](v1::Quota& quota) {
    quota.mutable_user()->set_acquires_per_second(2);
    quota.mutable_user()->set_acquires_burst(5);
  });
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(Spend(Grant(1), Charges::Rate::kAcquires), kFits) << i;
  }
  EXPECT_EQ(Spend(Grant(1), Charges::Rate::kAcquires), v1::REASON_RATE);
  EXPECT_EQ(Spend(Grant(2), Charges::Rate::kAcquires), kFits);
  EXPECT_EQ(Spend(Grant(1), Charges::Rate::kLoads), kFits);
  const auto later = std::chrono::milliseconds(1100);
  EXPECT_EQ(Spend(Grant(1), Charges::Rate::kAcquires, later), kFits);
  EXPECT_EQ(Spend(Grant(1), Charges::Rate::kAcquires, later), kFits);
  EXPECT_EQ(Spend(Grant(1), Charges::Rate::kAcquires, later), v1::REASON_RATE);
}

TEST_F(ChargesTest, LoadsAMinute) {
  Set([](v1::Quota& quota) { quota.mutable_total()->set_loads_per_minute(2); });
  EXPECT_EQ(Spend(Grant(1), Charges::Rate::kLoads), kFits);
  EXPECT_EQ(Spend(Grant(2), Charges::Rate::kLoads), kFits);
  EXPECT_EQ(Spend(Grant(3), Charges::Rate::kLoads), v1::REASON_RATE);
  EXPECT_EQ(Spend(Grant(3), Charges::Rate::kLoads, std::chrono::seconds(29)),
            v1::REASON_RATE);
  EXPECT_EQ(Spend(Grant(3), Charges::Rate::kLoads, std::chrono::seconds(31)),
            kFits);
}

// Who is refused for one of them has not used up another.
TEST_F(ChargesTest, ARefusalTakesNothing) {
  Set([](v1::Quota& quota) {
    quota.mutable_user()->set_acquires_per_second(1);
    quota.mutable_user()->set_acquires_burst(2);
    quota.mutable_total()->set_acquires_per_second(1);
  });
  EXPECT_EQ(Spend(Grant(2), Charges::Rate::kAcquires), kFits);
  EXPECT_EQ(Spend(Grant(1), Charges::Rate::kAcquires), v1::REASON_RATE);
  for (int second = 1; second <= 2; ++second) {
    EXPECT_EQ(Spend(Grant(1), Charges::Rate::kAcquires,
                    std::chrono::milliseconds(second * 1001)),
              kFits);
  }
}

TEST_F(ChargesTest, AnotherPolicyForgetsWhatWasCharged) {
  const auto one = [](v1::Quota& quota) {
    quota.mutable_total()->set_grants(1);
  };
  Set(one);
  charges_.Add(Grant(1), 0);
  EXPECT_EQ(Room(Grant(1)), v1::REASON_QUOTA);
  Set(one);
  EXPECT_EQ(Room(Grant(1)), kFits);
}

}  // namespace
}  // namespace bpfgrant::broker
