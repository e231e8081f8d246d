// What was given back counts until the kernel has nothing of it, and who waits
// for that.

#include <chrono>
#include <optional>
#include <string>
#include <thread>

#include "absl/strings/match.h"
#include "gtest/gtest.h"
#include "proto/refusal/refusal.h"
#include "tests/wire/broker_fixture.h"

namespace bpfgrant::broker_test {
namespace {

using Parts = TestBroker::Parts;
using Instance = daemon::LookRequest::Instance;

class RemainsTest : public WireTest {
 protected:
  static BrokerSetup Quota(uint32_t quota) {
    BrokerSetup setup;
    setup.catalog = Catalog({TestProgram()}, {Allow("sampler", quota)});
    return setup;
  }
  // From now on every instance that was let go of is still held, or none.
  void KeepAll() {
    broker().Ask([](Parts& parts) {
      parts.scripted.left = [](const Instance& instance) {
        return std::string(instance.session_maps() ? "" : "map 7 (samples)");
      };
    });
  }
  void DropAll() {
    broker().Ask([](Parts& parts) { parts.scripted.left = nullptr; });
  }
  static v1::ClientFrame Release(uint64_t grant, uint32_t wait_ms = 0) {
    v1::ClientFrame frame;
    frame.mutable_release()->set_grant(grant);
    frame.mutable_release()->set_wait_ms(wait_ms);
    return frame;
  }
  static v1::ClientFrame ListGrants() {
    v1::ClientFrame frame;
    frame.mutable_grants();
    return frame;
  }
  void WaitUntilReturned() {
    broker().WaitUntil("nothing counts", [](Parts& parts) {
      return parts.ledger.retired() == 0;
    });
  }
};

TEST_F(RemainsTest, QuotaComesBackWhenNothingIsLeft) {
  Start(Quota(1));
  KeepAll();
  RawPeer peer = Open();
  const uint64_t grant = peer.Acquire().frame.acquire().grant();
  EXPECT_TRUE(peer.Call(Release(grant)).frame.has_release());
  EXPECT_EQ(broker().OpenGates(), 0u);
  const RawPeer::Received refused = peer.Acquire();
  EXPECT_EQ(refused.reason(), v1::REASON_QUOTA);
  EXPECT_TRUE(absl::StrContains(refused.frame.refusal().message(),
                                "1 of them have ended"))
      << refused.frame.refusal().message();
  // It is the user's, not the session's.
  EXPECT_EQ(Open().Acquire().reason(), v1::REASON_QUOTA);
  DropAll();
  WaitUntilReturned();
  EXPECT_TRUE(peer.Acquire().frame.has_acquire());
}

TEST_F(RemainsTest, QuotaComesBackAtRelease_WithoutMitigation) {
  StartWithout(&daemon::Mitigations::quota_until_gone, Quota(1));
  KeepAll();
  RawPeer peer = Open();
  for (int i = 0; i < 10; ++i) {
    const uint64_t grant = peer.Acquire().frame.acquire().grant();
    ASSERT_NE(grant, 0u);
    EXPECT_TRUE(peer.Call(Release(grant)).frame.has_release());
  }
}

TEST_F(RemainsTest, TheEndOfASessionReturnsNoMore) {
  Start(Quota(1));
  KeepAll();
  RawPeer peer = Open();
  EXPECT_TRUE(peer.Acquire().frame.has_acquire());
  peer.Close();
  ExpectNothingLeft();
  RawPeer next = Open();
  EXPECT_EQ(next.Acquire().reason(), v1::REASON_QUOTA);
  DropAll();
  WaitUntilReturned();
  EXPECT_TRUE(next.Acquire().frame.has_acquire());
}

// Nothing of it ever was in anybody's hands.
TEST_F(RemainsTest, WhatWasNeverLoadedCountsNoMore) {
  BrokerSetup setup = Quota(1);
  setup.load = ScriptedLoader::Mode::kRefuse;
  Start(std::move(setup));
  KeepAll();
  RawPeer peer = Open();
  EXPECT_EQ(peer.Acquire().reason(), v1::REASON_LOAD_FAILED);
  EXPECT_EQ(broker().Ask([](Parts& parts) { return parts.ledger.retired(); }),
            0u);
}

TEST_F(RemainsTest, AnAcquireWaitsForWhatIsAboutToGo) {
  Start(Quota(1));
  KeepAll();
  RawPeer peer = Open();
  const uint64_t grant = peer.Acquire().frame.acquire().grant();
  ASSERT_EQ(peer.Send(Release(grant)), 0);
  ASSERT_EQ(peer.Send(AcquireFrame()), 0);
  EXPECT_TRUE(peer.Receive().frame.has_release());
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  DropAll();
  EXPECT_TRUE(peer.Receive().frame.has_acquire());
}

TEST_F(RemainsTest, NobodyWaitsForASessionsOwnLimit) {
  BrokerSetup setup;
  setup.grants_per_session = 1;
  Start(std::move(setup));
  KeepAll();
  RawPeer peer = Open();
  const uint64_t grant = peer.Acquire().frame.acquire().grant();
  EXPECT_TRUE(peer.Call(Release(grant)).frame.has_release());
  EXPECT_TRUE(peer.Acquire().frame.has_acquire());
  ASSERT_EQ(peer.Send(AcquireFrame()), 0);
  EXPECT_EQ(peer.Receive().reason(), v1::REASON_QUOTA);
  EXPECT_EQ(broker().Ask([](Parts& parts) { return parts.ledger.retired(); }),
            1u);
}

TEST_F(RemainsTest, ReleaseWaitsUntilNothingIsLeft) {
  Start();
  KeepAll();
  RawPeer peer = Open();
  const uint64_t grant = peer.Acquire().frame.acquire().grant();
  ASSERT_EQ(peer.Send(Release(grant, 20'000)), 0);
  // Others are served meanwhile, those of the same session among them.
  const RawPeer::Received grants = peer.Call(ListGrants());
  ASSERT_EQ(grants.frame.grants().grant_size(), 1);
  EXPECT_EQ(grants.frame.grants().grant(0).ended(), v1::REASON_RELEASED);
  EXPECT_EQ(broker().OpenGates(), 0u);
  ExpectPoliteIsServed();
  DropAll();
  EXPECT_TRUE(peer.Receive().frame.has_release());
  EXPECT_EQ(peer.Call(Release(grant)).reason(), v1::REASON_UNKNOWN_GRANT);
}

TEST_F(RemainsTest, ReleaseSaysWhatIsHeldWhenItsTimeIsUp) {
  Start();
  KeepAll();
  RawPeer peer = Open();
  const uint64_t grant = peer.Acquire().frame.acquire().grant();
  const RawPeer::Received late = peer.Call(Release(grant, 100));
  EXPECT_EQ(late.reason(), v1::REASON_STILL_HELD);
  EXPECT_TRUE(
      absl::StrContains(late.frame.refusal().message(), "map 7 (samples)"))
      << late.frame.refusal().message();
  const RawPeer::Received grants = peer.Call(ListGrants());
  ASSERT_EQ(grants.frame.grants().grant_size(), 1);
  EXPECT_EQ(grants.frame.grants().grant(0).held(), "map 7 (samples)");
  // Once more, by one call at a time; without waiting it is released already.
  ASSERT_EQ(peer.Send(Release(grant, 20'000)), 0);
  EXPECT_EQ(peer.Call(Release(grant, 20'000)).reason(), v1::REASON_BUSY);
  EXPECT_EQ(peer.Call(Release(grant)).reason(), v1::REASON_UNKNOWN_GRANT);
  EXPECT_EQ(Open().Call(Release(grant, 100)).reason(),
            v1::REASON_UNKNOWN_GRANT);
  DropAll();
  EXPECT_TRUE(peer.Receive().frame.has_release());
  // Too late.
  EXPECT_EQ(peer.Call(Release(grant, 100)).reason(), v1::REASON_UNKNOWN_GRANT);
}

TEST_F(RemainsTest, NoReleaseWaitsForHours) {
  Start();
  RawPeer peer = Open();
  const uint64_t grant = peer.Acquire().frame.acquire().grant();
  EXPECT_EQ(peer.Call(Release(grant, 3'600'000)).reason(),
            v1::REASON_INVALID_ARGUMENT);
  EXPECT_EQ(broker().OpenGates(), 1u);
}

TEST_F(RemainsTest, WithoutACensusQuotaComesBackAtReleaseAndNobodyWaits) {
  BrokerSetup setup = Quota(1);
  setup.census = false;
  Start(std::move(setup));
  KeepAll();
  RawPeer peer = Open();
  const uint64_t grant = peer.Acquire().frame.acquire().grant();
  EXPECT_EQ(peer.Call(Release(grant, 1000)).reason(),
            v1::REASON_KERNEL_TOO_OLD);
  EXPECT_EQ(broker().OpenGates(), 1u);
  EXPECT_TRUE(peer.Call(Release(grant)).frame.has_release());
  EXPECT_TRUE(peer.Acquire().frame.has_acquire());
  EXPECT_TRUE(broker()
                  .Ask([](Parts& parts) { return parts.scripted.looked_at(); })
                  .empty());
}

TEST_F(RemainsTest, ALookThatFailsReturnsNothing) {
  Start(Quota(1));
  broker().Ask([](Parts& parts) {
    parts.scripted.look = ScriptedLoader::Mode::kRefuse;
  });
  RawPeer peer = Open();
  const uint64_t grant = peer.Acquire().frame.acquire().grant();
  EXPECT_EQ(peer.Call(Release(grant, 100)).reason(), v1::REASON_STILL_HELD);
  EXPECT_EQ(peer.Acquire().reason(), v1::REASON_QUOTA);
  broker().Ask([](Parts& parts) {
    parts.scripted.look = ScriptedLoader::Mode::kAnswer;
  });
  // The next look may be over before this is asked.
  const auto reply = peer.Call(Release(grant, 20'000));
  EXPECT_TRUE(reply.frame.has_release() ||
              reply.reason() == v1::REASON_UNKNOWN_GRANT);
  EXPECT_NE(peer.Acquire().frame.acquire().grant(), 0u);
}

// The pause doubles, unless somebody waits.
TEST_F(RemainsTest, WhatStaysIsLookedAtLessAndLess) {
  Start();
  KeepAll();
  RawPeer peer = Open();
  const uint64_t grant = peer.Acquire().frame.acquire().grant();
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_TRUE(peer.Call(Release(grant)).frame.has_release());
  std::this_thread::sleep_for(std::chrono::milliseconds(700));
  const auto count = [this] {
    return broker().Ask(
        [](Parts& parts) { return parts.scripted.looked_at().size(); });
  };
  const size_t looks = count();
  size_t most = 0;
  for (auto pause = std::chrono::milliseconds(20);
       begin + pause < std::chrono::steady_clock::now(); pause *= 2) {
    ++most;
  }
  EXPECT_GE(looks, 1u);
  EXPECT_LE(looks, most);
  ASSERT_EQ(peer.Send(Release(grant, 20'000)), 0);
  broker().WaitUntil("it is looked at often", [&](Parts& parts) {
    return parts.scripted.looked_at().size() > looks + 20;
  });
  DropAll();
  EXPECT_TRUE(peer.Receive().frame.has_release());
}

TEST_F(RemainsTest, SessionEndsWhileItWaits) {
  Start(Quota(1));
  KeepAll();
  {
    RawPeer peer = Open();
    const uint64_t grant = peer.Acquire().frame.acquire().grant();
    ASSERT_EQ(peer.Send(Release(grant, 20'000)), 0);
    ASSERT_EQ(peer.Send(AcquireFrame()), 0);
    broker().WaitUntil("it is released", [](Parts& parts) {
      return parts.ledger.retired() == 1;
    });
  }
  ExpectNothingLeft();
  DropAll();
  WaitUntilReturned();
  // Nobody got what the dead one asked for.
  EXPECT_EQ(broker().Look().grants, 0u);
  ExpectPoliteIsServed();
}

TEST_F(RemainsTest, DaemonStopsWhileTheyWait) {
  Start(Quota(1));
  KeepAll();
  RawPeer peer = Open();
  const uint64_t grant = peer.Acquire().frame.acquire().grant();
  std::optional<v1::Reason> release, acquire;
  broker().Ask([&](Parts& parts) {
    broker::Session& session =
        *parts.acceptor.FindByToken(peer.hello().token());
    parts.service.Release(session, Release(grant, 20'000).release(),
                          [&](absl::StatusOr<v1::ReleaseReply> reply) {
                            release = ReasonOf(reply.status());
                          });
    parts.service.Acquire(session, AcquireFrame().acquire(), {},
                          /*claim_later=*/true,
                          [&](absl::StatusOr<broker::Delivered> delivered) {
                            acquire = ReasonOf(delivered.status());
                          });
    EXPECT_FALSE(release.has_value() || acquire.has_value());
    parts.remains.Stop();
  });
  EXPECT_EQ(release, v1::REASON_DAEMON_STOPPED);
  EXPECT_EQ(acquire, v1::REASON_DAEMON_STOPPED);
}

// What a session's grants share lives as long as the session; from then on it
// counts for itself.
TEST_F(RemainsTest, SharedMapsCountFromTheEndOfTheirSession) {
  BrokerSetup setup = Quota(1);
  setup.catalog.mutable_entry(0)->add_session_map("shared");
  setup.catalog.mutable_entry(0)->set_pool_target(0);
  Start(std::move(setup));
  broker().Ask([](Parts& parts) {
    parts.scripted.handles["sampler"] = 2;  // a handle, and the shared map
    parts.scripted.left = [](const Instance& instance) {
      return std::string(instance.session_maps() ? "map 8 (shared)" : "");
    };
  });
  RawPeer peer = Open();
  const uint64_t grant = peer.Acquire().frame.acquire().grant();
  ASSERT_NE(grant, 0u);
  EXPECT_TRUE(peer.Call(Release(grant, 20'000)).frame.has_release());
  EXPECT_EQ(broker().Ask([](Parts& parts) { return parts.ledger.retired(); }),
            0u);
  peer.Close();
  broker().WaitUntil("the shared map counts",
                     [](Parts& parts) { return parts.ledger.retired() == 1; });
  RawPeer next = Open();
  EXPECT_EQ(next.Acquire().reason(), v1::REASON_QUOTA);
  const v1::GrantsReply grants = next.Call(ListGrants()).frame.grants();
  ASSERT_EQ(grants.grant_size(), 1);
  EXPECT_EQ(grants.grant(0).ended(), v1::REASON_SESSION_ENDED);
  EXPECT_EQ(grants.grant(0).held(), "map 8 (shared)");
  DropAll();
  WaitUntilReturned();
  const auto looked_at =
      broker().Ask([](Parts& parts) { return parts.scripted.looked_at(); });
  EXPECT_TRUE(looked_at.back().session_maps());
  EXPECT_EQ(looked_at.back().gate_nonce(), looked_at.front().gate_nonce());
}

}  // namespace
}  // namespace bpfgrant::broker_test
