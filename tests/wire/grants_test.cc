// Whose grants they are, how many there may be, and how they end.

#include <sys/stat.h>

#include <set>
#include <vector>

#include "gtest/gtest.h"
#include "tests/wire/broker_fixture.h"

namespace bpfgrant::broker_test {
namespace {

using Parts = TestBroker::Parts;

class GrantsTest : public WireTest {
 protected:
  static BrokerSetup Administrators() {
    BrokerSetup setup;
    setup.administrator_group = Ordinary().gid;
    return setup;
  }
  static BrokerSetup Quota(uint32_t quota) {
    BrokerSetup setup;
    setup.catalog = Catalog({TestProgram()}, {Allow("sampler", quota)});
    return setup;
  }
  static v1::ClientFrame Release(uint64_t grant) {
    v1::ClientFrame frame;
    frame.mutable_release()->set_grant(grant);
    return frame;
  }
  static v1::ClientFrame Claim(uint64_t grant) {
    v1::ClientFrame frame;
    frame.mutable_claim()->set_grant(grant);
    return frame;
  }
  static v1::ClientFrame Revoke(uint64_t grant) {
    v1::ClientFrame frame;
    frame.mutable_revoke()->set_grant(grant);
    return frame;
  }
  // An Acquire as it comes over gRPC; the grant's id, or 0.
  uint64_t AcquireToClaim(const RawPeer& peer) {
    uint64_t grant = 0;
    broker().Ask([&](Parts& parts) {
      broker::Session* session =
          parts.acceptor.FindByToken(peer.hello().token());
      parts.service.Acquire(*session, AcquireFrame().acquire(), {},
                            /*claim_later=*/true,
                            [&](absl::StatusOr<broker::Delivered> delivered) {
                              if (!delivered.ok()) return;
                              EXPECT_TRUE(delivered->fds.empty());
                              EXPECT_TRUE(delivered->reply.claimable());
                              grant = delivered->reply.grant();
                            });
    });
    return grant;
  }
};

TEST_F(GrantsTest, WhatNothingStopsIsForTheTrusted) {
  BrokerSetup setup;
  setup.catalog = Catalog({TestProgram()}, {Allow("sampler", 4)});
  setup.catalog.mutable_entry(0)
      ->mutable_description()
      ->mutable_detail()
      ->set_on_revoke("NOTHING");
  Start(setup);
  EXPECT_EQ(Open().Acquire().reason(), v1::REASON_ADMISSION_LIMIT);
  setup.catalog.mutable_rule(0)->set_trusted(true);
  broker().Replace(setup.catalog);
  EXPECT_TRUE(Open().Acquire().frame.has_acquire());
}

TEST_F(GrantsTest, ReleaseClosesTheGateOnce) {
  Start();
  RawPeer peer = Open();
  const uint64_t grant = peer.Acquire().frame.acquire().grant();
  EXPECT_EQ(broker().OpenGates(), 1u);
  EXPECT_TRUE(peer.Call(Release(grant)).frame.has_release());
  EXPECT_EQ(broker().OpenGates(), 0u);
  EXPECT_EQ(peer.Call(Release(grant)).reason(), v1::REASON_UNKNOWN_GRANT);
}

TEST_F(GrantsTest, ReleaseLeavesTheGateOpen_WithoutMitigation) {
  StartWithout(&daemon::Mitigations::gate_closes);
  RawPeer peer = Open();
  const uint64_t grant = peer.Acquire().frame.acquire().grant();
  EXPECT_TRUE(peer.Call(Release(grant)).frame.has_release());
  EXPECT_EQ(broker().Look().grants, 0u);
  EXPECT_EQ(broker().OpenGates(), 1u);
}

TEST_F(GrantsTest, AnothersCannotBeReleased) {
  Start();
  RawPeer owner = Open();
  RawPeer thief = Open();
  const uint64_t grant = owner.Acquire().frame.acquire().grant();
  EXPECT_EQ(thief.Call(Release(grant)).reason(), v1::REASON_UNKNOWN_GRANT);
  EXPECT_EQ(broker().OpenGates(), 1u);
}

// What a nonce is for: the slot's next tenant does not wake up the old one.
TEST_F(GrantsTest, NextTenantOfASlotHasAnotherNonce) {
  Start(Quota(1));
  RawPeer peer = Open();
  std::set<std::pair<uint32_t, uint64_t>> tenants;
  for (int i = 0; i < 20; ++i) {
    const uint64_t grant = peer.Acquire().frame.acquire().grant();
    EXPECT_TRUE(peer.Call(Release(grant)).frame.has_release());
  }
  const auto requests =
      broker().Ask([](Parts& parts) { return parts.scripted.requests(); });
  std::set<uint32_t> slots;
  for (const daemon::LoaderRequest& request : requests) {
    slots.insert(request.load().gate_slot());
    EXPECT_NE(request.load().gate_nonce(), 0u);
    EXPECT_TRUE(
        tenants.emplace(request.load().gate_slot(), request.load().gate_nonce())
            .second);
  }
  EXPECT_LT(slots.size(), tenants.size());
}

TEST_F(GrantsTest, NextTenantOfASlotWakesTheOldOne_WithoutMitigation) {
  StartWithout(&daemon::Mitigations::gate_nonce, Quota(1));
  RawPeer peer = Open();
  for (int i = 0; i < 3; ++i) {
    const uint64_t grant = peer.Acquire().frame.acquire().grant();
    EXPECT_TRUE(peer.Call(Release(grant)).frame.has_release());
  }
  const auto requests =
      broker().Ask([](Parts& parts) { return parts.scripted.requests(); });
  std::set<uint64_t> nonces;
  for (const auto& request : requests)
    nonces.insert(request.load().gate_nonce());
  EXPECT_EQ(nonces.size(), 1u);
}

ino_t MapOf(const RawPeer::Received& reply) {
  struct stat status {};
  EXPECT_EQ(fstat(reply.fds.at(1).get(), &status), 0);
  return status.st_ino;
}

TEST_F(GrantsTest, InstancesAreNeverHandedOutTwice) {
  Start();
  RawPeer peer = Open();
  std::set<ino_t> maps;
  std::vector<RawPeer::Received> kept;
  for (int i = 0; i < 20; ++i) {
    kept.push_back(peer.Acquire());
    ASSERT_EQ(kept.back().fds.size(), 2u);
    EXPECT_TRUE(maps.insert(MapOf(kept.back())).second);
    peer.Call(Release(kept.back().frame.acquire().grant()));
  }
}

TEST_F(GrantsTest, InstancesAreShared_WithoutMitigation) {
  StartWithout(&daemon::Mitigations::instances_not_reused);
  RawPeer first = Open();
  RawPeer second = Open();
  const RawPeer::Received one = first.Acquire();
  const RawPeer::Received two = second.Acquire();
  // One client reads what is in the other's map.
  EXPECT_EQ(MapOf(one), MapOf(two));
}

TEST_F(GrantsTest, ClaimBringsTheFdsOnce) {
  Start();
  RawPeer peer = Open();
  const uint64_t grant = AcquireToClaim(peer);
  ASSERT_NE(grant, 0u);
  EXPECT_EQ(broker().OpenGates(), 0u);
  const RawPeer::Received reply = peer.Call(Claim(grant));
  EXPECT_EQ(reply.frame.acquire().grant(), grant);
  EXPECT_EQ(reply.fds.size(), 2u);
  EXPECT_EQ(broker().OpenGates(), 1u);
  EXPECT_EQ(peer.Call(Claim(grant)).reason(), v1::REASON_ALREADY_CLAIMED);
}

TEST_F(GrantsTest, AnothersCannotBeClaimed) {
  Start();
  RawPeer owner = Open();
  RawPeer thief = Open();
  const uint64_t grant = AcquireToClaim(owner);
  const RawPeer::Received stolen = thief.Call(Claim(grant));
  EXPECT_EQ(stolen.reason(), v1::REASON_UNKNOWN_GRANT);
  EXPECT_TRUE(stolen.fds.empty());
  EXPECT_EQ(owner.Call(Claim(grant)).fds.size(), 2u);
}

TEST_F(GrantsTest, WhatWasNotToBeClaimedCannotBe) {
  Start();
  RawPeer peer = Open();
  const uint64_t grant = peer.Acquire().frame.acquire().grant();
  EXPECT_EQ(peer.Call(Claim(grant)).reason(), v1::REASON_ALREADY_CLAIMED);
}

TEST_F(GrantsTest, UnclaimedOnesAreFew) {
  Start();
  RawPeer peer = Open();
  uint64_t last = 0;
  for (int i = 0; i < 4; ++i) {
    last = AcquireToClaim(peer);
    broker().Settle();
    EXPECT_NE(last, 0u);
  }
  EXPECT_EQ(AcquireToClaim(peer), 0u);
  EXPECT_TRUE(peer.Call(Release(last)).frame.has_release());
  EXPECT_NE(AcquireToClaim(peer), 0u);
  peer.Close();
  ExpectNothingLeft();
}

TEST_F(GrantsTest, RevokeClosesTheGateAndTellsTheOwner) {
  Start(Administrators());
  RawPeer owner = Open();
  RawPeer administrator = Open();
  const uint64_t grant = owner.Acquire().frame.acquire().grant();
  const RawPeer::Received reply = administrator.Call(Revoke(grant));
  EXPECT_EQ(reply.frame.revoke().revoked(), 1u);
  EXPECT_EQ(broker().OpenGates(), 0u);
  const v1::Event event = owner.Receive().frame.event();
  EXPECT_EQ(event.type(), v1::Event::TYPE_GRANT_ENDED);
  EXPECT_EQ(event.reason(), v1::REASON_REVOKED);
  EXPECT_EQ(event.grant().grant(), grant);
  EXPECT_EQ(administrator.Call(Revoke(grant)).reason(),
            v1::REASON_UNKNOWN_GRANT);
  EXPECT_EQ(owner.Call(Release(grant)).reason(), v1::REASON_UNKNOWN_GRANT);
  // The session goes on.
  EXPECT_TRUE(owner.Acquire().frame.has_acquire());
}

TEST_F(GrantsTest, RevokeByWhatIsNamed) {
  Start(Administrators());
  RawPeer administrator = Open();
  const auto revoke = [&](auto name) {
    RawPeer owner = Open();
    EXPECT_TRUE(owner.Acquire().frame.has_acquire());
    EXPECT_TRUE(owner.Acquire("tap").frame.has_acquire());
    v1::ClientFrame frame;
    name(*frame.mutable_revoke());
    const RawPeer::Received reply = administrator.Call(frame);
    owner.Close();
    broker().WaitUntil("it is gone",
                       [](Parts& parts) { return parts.ledger.size() == 0; });
    return reply.frame.has_refusal()
               ? -1
               : static_cast<int>(reply.frame.revoke().revoked());
  };
  using R = v1::RevokeRequest;
  EXPECT_EQ(revoke([](R& what) { what.set_program("tap"); }), 1);
  EXPECT_EQ(revoke([](R& what) { what.set_program("absent"); }), 0);
  EXPECT_EQ(revoke([](R& what) { what.set_digest("digest 1"); }), 2);
  EXPECT_EQ(revoke([](R& what) { what.set_uid(Ordinary().uid); }), 2);
  EXPECT_EQ(revoke([](R& what) { what.set_uid(Ordinary().uid + 1); }), 0);
  EXPECT_EQ(revoke([](R& what) { what.set_all(true); }), 2);
  EXPECT_EQ(revoke([](R& what) { what.set_all(false); }), -1);
  EXPECT_EQ(revoke([](R& what) { what.set_unit(""); }), -1);
  EXPECT_EQ(revoke([](R&) {}), -1);
}

TEST_F(GrantsTest, QuotaHoldsForTwoSessionsAtOnce) {
  Start(Quota(3));
  RawPeer one = Open();
  RawPeer two = Open();
  for (int i = 0; i < 4; ++i) {
    ASSERT_EQ(one.Send(AcquireFrame()), 0);
    ASSERT_EQ(two.Send(AcquireFrame()), 0);
  }
  int granted = 0;
  int refused = 0;
  for (RawPeer* peer : {&one, &two}) {
    for (int i = 0; i < 4; ++i) {
      const RawPeer::Received reply = peer->Receive();
      granted += reply.frame.has_acquire();
      refused += reply.reason() == v1::REASON_QUOTA;
    }
  }
  EXPECT_EQ(granted, 3);
  EXPECT_EQ(refused, 5);
  EXPECT_EQ(broker().OpenGates(), 3u);
}

TEST_F(GrantsTest, QuotaIsPassed_WithoutMitigation) {
  StartWithout(&daemon::Mitigations::quotas, Quota(3));
  RawPeer peer = Open();
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(peer.Acquire().frame.has_acquire());
  }
  EXPECT_EQ(broker().OpenGates(), 10u);
}

TEST_F(GrantsTest, QuotaIsEachUsersOwnAndComesBack) {
  Start(Quota(1));
  RawPeer peer = Open();
  const uint64_t grant = peer.Acquire().frame.acquire().grant();
  const RawPeer::Received refused = peer.Acquire();
  EXPECT_EQ(refused.reason(), v1::REASON_QUOTA);
  EXPECT_EQ(refused.frame.refusal().verdict().rule(), "allow sampler");
  if (getuid() == 0) {
    EXPECT_TRUE(Open({65533, 65533}).Acquire().frame.has_acquire());
  }
  peer.Call(Release(grant));
  EXPECT_TRUE(peer.Acquire().frame.has_acquire());
}

TEST_F(GrantsTest, OneSessionHoldsSoManyOnly) {
  BrokerSetup setup;
  setup.grants_per_session = 2;
  Start(std::move(setup));
  RawPeer peer = Open();
  EXPECT_TRUE(peer.Acquire().frame.has_acquire());
  EXPECT_TRUE(peer.Acquire("tap").frame.has_acquire());
  EXPECT_EQ(peer.Acquire().reason(), v1::REASON_QUOTA);
  EXPECT_TRUE(Open().Acquire().frame.has_acquire());
}

}  // namespace
}  // namespace bpfgrant::broker_test
