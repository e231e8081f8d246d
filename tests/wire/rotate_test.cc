// Maps that are turned over: who may, when, and what it does to the slot.

#include <optional>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "proto/refusal/refusal.h"
#include "tests/wire/broker_fixture.h"

namespace bpfgrant::broker_test {
namespace {

using Parts = TestBroker::Parts;
using Reply = absl::StatusOr<v1::RotateReply>;

// `sampler` with two swappable maps, in the order of the manifest.
BrokerSetup Swappable() {
  TestProgram sampler;
  sampler.handles = 4;
  BrokerSetup setup;
  setup.catalog = Catalog({sampler}, {Allow("sampler", 1)});
  auto& handles =
      *setup.catalog.mutable_entry(0)->mutable_description()->mutable_handle();
  for (int i = 0; i < 4; ++i)
    handles[i].set_swappable(i < 2 ? "keys" : "table");
  return setup;
}

class RotateWireTest : public WireTest {
 protected:
  static v1::ClientFrame Rotate(uint64_t grant,
                                const std::vector<std::string>& maps,
                                uint32_t deadline_ms = 0) {
    v1::ClientFrame frame;
    frame.mutable_rotate()->set_grant(grant);
    frame.mutable_rotate()->set_deadline_ms(deadline_ms);
    for (const std::string& map : maps) frame.mutable_rotate()->add_map(map);
    return frame;
  }
  // As within one turn of the broker's loop: no grace period ends in between.
  static void Ask(Parts& parts, const RawPeer& peer,
                  const v1::ClientFrame& frame, std::optional<Reply>& reply) {
    broker::Session* session = parts.acceptor.FindByToken(peer.hello().token());
    parts.service.Rotate(*session, frame.rotate(),
                         [&reply](Reply came) { reply = std::move(came); });
  }
  uint64_t Swaps(uint64_t grant) {
    return broker().Ask([grant](Parts& parts) {
      return parts.gates.Swaps(parts.ledger.Find(grant)->instance.gate);
    });
  }
};

TEST_F(RotateWireTest, TurnsTheBitsOfThoseThatAreNamed) {
  Start(Swappable());
  RawPeer peer = Open();
  const uint64_t grant = peer.Acquire().frame.acquire().grant();
  EXPECT_EQ(Swaps(grant), 0u);
  auto reply = peer.Call(Rotate(grant, {"table"}));
  ASSERT_TRUE(reply.frame.has_rotate()) << reply.frame.ShortDebugString();
  EXPECT_EQ(reply.frame.rotate().current(0), "table.1");
  EXPECT_EQ(Swaps(grant), 2u);
  reply = peer.Call(Rotate(grant, {"table", "keys"}));
  ASSERT_TRUE(reply.frame.has_rotate());
  EXPECT_EQ(reply.frame.rotate().current(0), "table.0");
  EXPECT_EQ(reply.frame.rotate().current(1), "keys.1");
  EXPECT_EQ(Swaps(grant), 1u);
}

TEST_F(RotateWireTest, TheSlotsNextTenantBeginsAnew) {
  Start(Swappable());
  RawPeer peer = Open();
  for (int i = 0; i < 3; ++i) {
    const uint64_t grant = peer.Acquire().frame.acquire().grant();
    EXPECT_EQ(Swaps(grant), 0u);
    EXPECT_TRUE(peer.Call(Rotate(grant, {"keys", "table"})).frame.has_rotate());
    EXPECT_EQ(Swaps(grant), 3u);
    v1::ClientFrame release;
    release.mutable_release()->set_grant(grant);
    EXPECT_TRUE(peer.Call(release).frame.has_release());
  }
}

TEST_F(RotateWireTest, RefusalsTurnNothing) {
  Start(Swappable());
  RawPeer peer = Open();
  RawPeer other = Open();
  const uint64_t grant = peer.Acquire().frame.acquire().grant();
  EXPECT_EQ(other.Call(Rotate(grant, {"keys"})).reason(),
            v1::REASON_UNKNOWN_GRANT);
  EXPECT_EQ(peer.Call(Rotate(grant + 1, {"keys"})).reason(),
            v1::REASON_UNKNOWN_GRANT);
  EXPECT_EQ(peer.Call(Rotate(grant, {"keys", "nothing"})).reason(),
            v1::REASON_UNKNOWN_HANDLE);
  EXPECT_EQ(peer.Call(Rotate(grant, {"keys", "table", "keys"})).reason(),
            v1::REASON_UNKNOWN_HANDLE);
  EXPECT_EQ(peer.Call(Rotate(grant, {""})).reason(), v1::REASON_UNKNOWN_HANDLE);
  EXPECT_EQ(peer.Call(Rotate(grant, {"keys"}, 60'001)).reason(),
            v1::REASON_INVALID_ARGUMENT);
  EXPECT_EQ(peer.Call(Rotate(grant, {"keys"}, ~0u)).reason(),
            v1::REASON_INVALID_ARGUMENT);
  EXPECT_EQ(Swaps(grant), 0u);
}

TEST_F(RotateWireTest, NotBeforeItWasClaimed) {
  Start(Swappable());
  RawPeer peer = Open();
  uint64_t grant = 0;
  std::optional<Reply> reply;
  broker().Ask([&](Parts& parts) {
    broker::Session* session = parts.acceptor.FindByToken(peer.hello().token());
    parts.service.Acquire(*session, AcquireFrame().acquire(), {},
                          /*claim_later=*/true,
                          [&](absl::StatusOr<broker::Delivered> delivered) {
                            ASSERT_TRUE(delivered.ok()) << delivered.status();
                            grant = delivered->reply.grant();
                          });
    Ask(parts, peer, Rotate(grant, {"keys"}), reply);
  });
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(ReasonOf(reply->status()), v1::REASON_UNKNOWN_GRANT);
}

TEST_F(RotateWireTest, ASecondTurnWaitsForTheFirst) {
  Start(Swappable());
  RawPeer peer = Open();
  const uint64_t grant = peer.Acquire().frame.acquire().grant();
  std::optional<Reply> first, second, waiting, too_many;
  broker().Ask([&](Parts& parts) {
    Ask(parts, peer, Rotate(grant, {"keys"}), first);
    Ask(parts, peer, Rotate(grant, {"table"}), second);
    Ask(parts, peer, Rotate(grant, {}), too_many);
    EXPECT_FALSE(first.has_value());
  });
  ASSERT_TRUE(second.has_value() && too_many.has_value());
  EXPECT_EQ(ReasonOf(second->status()), v1::REASON_BUSY);
  EXPECT_EQ(ReasonOf(too_many->status()), v1::REASON_BUSY);
  EXPECT_EQ(Swaps(grant), 1u);
  broker().WaitUntil("the first turn has its end",
                     [&](Parts&) { return first.has_value(); });
  EXPECT_TRUE(first->ok()) << first->status();
  EXPECT_TRUE(peer.Call(Rotate(grant, {"table"})).frame.has_rotate());
}

TEST_F(RotateWireTest, ASecondTurnDoesNotWait_WithoutMitigation) {
  BrokerSetup setup = Swappable();
  setup.mitigations.rotate_waits = false;
  Start(setup);
  RawPeer peer = Open();
  const uint64_t grant = peer.Acquire().frame.acquire().grant();
  std::optional<Reply> first, second;
  broker().Ask([&](Parts& parts) {
    Ask(parts, peer, Rotate(grant, {"keys"}), first);
    Ask(parts, peer, Rotate(grant, {"keys"}), second);
  });
  ASSERT_TRUE(first.has_value() && second.has_value());
  EXPECT_TRUE(first->ok() && second->ok());
}

TEST_F(RotateWireTest, TheGrantsEndIsItsAnswer) {
  Start(Swappable());
  RawPeer peer = Open();
  const uint64_t grant = peer.Acquire().frame.acquire().grant();
  std::optional<Reply> reply;
  broker().Ask([&](Parts& parts) {
    Ask(parts, peer, Rotate(grant, {"keys"}), reply);
    parts.granting.End(grant, v1::REASON_REVOKED);
  });
  broker().WaitUntil("it is answered",
                     [&](Parts&) { return reply.has_value(); });
  EXPECT_EQ(ReasonOf(reply->status()), v1::REASON_SESSION_ENDED);
}

TEST_F(RotateWireTest, WhoHangsUpIsNotWaitedFor) {
  Start(Swappable());
  {
    RawPeer peer = Open();
    const uint64_t grant = peer.Acquire().frame.acquire().grant();
    peer.Send(Rotate(grant, {"keys"}));
  }
  broker().WaitUntil("nobody is there",
                     [](Parts& parts) { return parts.acceptor.size() == 0; });
  RawPeer next = Open();
  EXPECT_NE(next.Acquire().frame.acquire().grant(), 0u);
}

TEST_F(RotateWireTest, TheDaemonsEndIsItsAnswer) {
  Start(Swappable());
  RawPeer peer = Open();
  const uint64_t grant = peer.Acquire().frame.acquire().grant();
  std::optional<Reply> reply;
  broker().Ask([&](Parts& parts) {
    Ask(parts, peer, Rotate(grant, {"keys"}), reply);
    parts.rotations.Stop();
  });
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(ReasonOf(reply->status()), v1::REASON_DAEMON_STOPPED);
}

// Nobody is told that it is over when nobody knows.
TEST_F(RotateWireTest, WithoutAKeeperOfGracePeriodsTheDeadlineAnswers) {
  BrokerSetup setup = Swappable();
  setup.grace_periods = false;
  Start(setup);
  RawPeer peer = Open();
  const uint64_t grant = peer.Acquire().frame.acquire().grant();
  EXPECT_EQ(peer.Call(Rotate(grant, {"keys"}, 20)).reason(),
            v1::REASON_STILL_READ);
  EXPECT_EQ(Swaps(grant), 1u);
  EXPECT_EQ(peer.Call(Rotate(grant, {}, 20)).reason(), v1::REASON_STILL_READ);
}

}  // namespace
}  // namespace bpfgrant::broker_test
