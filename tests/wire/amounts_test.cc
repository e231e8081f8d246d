// Amounts of a rule's quota, for a user, a unit and all together.

#include <functional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/wire/broker_fixture.h"

namespace bpfgrant::broker_test {
namespace {

using Mode = ScriptedLoader::Mode;
using Parts = TestBroker::Parts;

class AmountsTest : public WireTest {
 protected:
  static daemon::CompiledRule With(
      const std::function<void(v1::Quota&)>& amounts) {
    daemon::CompiledRule rule = Allow("sampler", 1000);
    amounts(*rule.mutable_amounts());
    return rule;
  }
  static BrokerSetup Setup(const std::function<void(v1::Quota&)>& amounts) {
    TestProgram program;
    BrokerSetup setup;
    setup.catalog = Catalog({program}, {With(amounts)});
    return setup;
  }
  static v1::ClientFrame Release(uint64_t grant) {
    v1::ClientFrame frame;
    frame.mutable_release()->set_grant(grant);
    return frame;
  }
  // Until one is refused, 20 at most.
  static size_t Granted(RawPeer& peer) {
    size_t count = 0;
    while (count < 20 && peer.Acquire().frame.has_acquire()) ++count;
    return count;
  }
};

TEST_F(AmountsTest, GrantsInAll) {
  Start(Setup([](v1::Quota& quota) { quota.mutable_total()->set_grants(3); }));
  RawPeer one = Open(), other = Open();
  const uint64_t grant = one.Acquire().frame.acquire().grant();
  EXPECT_TRUE(other.Acquire().frame.has_acquire());
  EXPECT_TRUE(other.Acquire().frame.has_acquire());
  const auto refused = one.Acquire();
  EXPECT_EQ(refused.reason(), v1::REASON_QUOTA);
  EXPECT_NE(refused.frame.refusal().message().find("3 of 3 grants"),
            std::string::npos)
      << refused.frame.refusal().message();
  EXPECT_TRUE(one.Call(Release(grant)).frame.has_release());
  EXPECT_TRUE(other.Acquire().frame.has_acquire());
}

TEST_F(AmountsTest, ExplainSaysWhatIsUsed) {
  Start(Setup([](v1::Quota& quota) {
    quota.mutable_user()->set_sessions(2);
    quota.mutable_total()->set_grants(3);
  }));
  RawPeer peer = Open();
  EXPECT_TRUE(peer.Acquire().frame.has_acquire());
  v1::ClientFrame frame;
  frame.mutable_explain()->set_program("sampler");
  const v1::ExplainReply reply = peer.Call(frame).frame.explain();
  ASSERT_EQ(reply.amount_size(), 2);
  EXPECT_EQ(reply.amount(0), absl::StrCat("uid ", Ordinary().uid,
                                          " has 1 of 2 sessions with grants"));
  EXPECT_EQ(reply.amount(1), "there are 1 of 3 grants");
}

TEST_F(AmountsTest, AreNotLimited_WithoutMitigation) {
  StartWithout(&daemon::Mitigations::quotas, Setup([](v1::Quota& quota) {
    quota.mutable_total()->set_grants(3);
    quota.mutable_total()->set_acquires_per_second(3);
  }));
  RawPeer peer = Open();
  EXPECT_EQ(Granted(peer), 20u);
}

TEST_F(AmountsTest, SessionsOfAUser) {
  Start(Setup([](v1::Quota& quota) { quota.mutable_user()->set_sessions(1); }));
  RawPeer one = Open(), other = Open();
  EXPECT_TRUE(one.Acquire().frame.has_acquire());
  EXPECT_EQ(other.Acquire().reason(), v1::REASON_QUOTA);
  EXPECT_TRUE(one.Acquire().frame.has_acquire());
  one.Close();
  broker().WaitUntil("the first is over", [](Parts& parts) {
    return parts.ledger.size() == 0 && parts.ledger.retired() == 0;
  });
  EXPECT_TRUE(other.Acquire().frame.has_acquire());
}

TEST_F(AmountsTest, AcquiresAreRefusedAndUseUpNoInstance) {
  Start(Setup([](v1::Quota& quota) {
    quota.mutable_user()->set_acquires_per_second(1);
    quota.mutable_user()->set_acquires_burst(2);
  }));
  broker().Settle();
  RawPeer peer = Open();
  EXPECT_TRUE(peer.Acquire().frame.has_acquire());
  EXPECT_TRUE(peer.Acquire().frame.has_acquire());
  broker().Settle();
  const size_t loads = broker().Look().loads;
  for (int i = 0; i < 10; ++i) {
    // One a second comes back.
    const auto answer = peer.Acquire();
    if (answer.frame.has_acquire()) continue;
    EXPECT_EQ(answer.reason(), v1::REASON_RATE);
  }
  EXPECT_GE(broker().Refusals(v1::REASON_RATE), 5u);
  broker().Settle();
  EXPECT_LE(broker().Look().loads, loads + 5);
}

TEST_F(AmountsTest, LoadsThatNoInstanceServes) {
  BrokerSetup setup = Setup(
      [](v1::Quota& quota) { quota.mutable_user()->set_loads_per_minute(2); });
  setup.catalog.mutable_entry(0)->set_pool_target(0);
  Start(setup);
  RawPeer peer = Open();
  EXPECT_EQ(Granted(peer), 2u);
  EXPECT_EQ(peer.Acquire().reason(), v1::REASON_RATE);
}

TEST_F(AmountsTest, WhatThePoolServesIsNoLoad) {
  Start(Setup(
      [](v1::Quota& quota) { quota.mutable_user()->set_loads_per_minute(1); }));
  RawPeer peer = Open();
  for (int i = 0; i < 6; ++i) {
    broker().Settle();
    EXPECT_TRUE(peer.Acquire().frame.has_acquire()) << i;
  }
}

// What was granted before the rule had amounts counts, too.
TEST_F(AmountsTest, AReloadChargesWhatLives) {
  Start(Setup([](v1::Quota&) {}));
  RawPeer peer = Open();
  EXPECT_TRUE(peer.Acquire().frame.has_acquire());
  EXPECT_TRUE(peer.Acquire().frame.has_acquire());
  broker().Replace(Catalog({TestProgram()}, {With([](v1::Quota& quota) {
                             quota.mutable_user()->set_grants(3);
                           })}));
  EXPECT_TRUE(peer.Acquire().frame.has_acquire());
  EXPECT_EQ(peer.Acquire().reason(), v1::REASON_QUOTA);
}

TEST_F(AmountsTest, TwoSessionsAtOnce) {
  Start(Setup([](v1::Quota& quota) { quota.mutable_user()->set_grants(5); }));
  RawPeer one = Open(), other = Open();
  for (int i = 0; i < 4; ++i) {
    one.Send(AcquireFrame());
    other.Send(AcquireFrame());
  }
  size_t granted = 0;
  for (RawPeer* peer : {&one, &other}) {
    for (int i = 0; i < 4; ++i) {
      granted += peer->ReceiveReply().frame.has_acquire();
    }
  }
  EXPECT_EQ(granted, 5u);
}

}  // namespace
}  // namespace bpfgrant::broker_test
