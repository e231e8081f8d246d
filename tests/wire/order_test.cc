// Every call in every state of a connection: what it is answered with, and that
// a refusal changes nothing.

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/wire/broker_fixture.h"

namespace bpfgrant::broker_test {
namespace {

constexpr v1::Reason kAnswered = v1::REASON_UNSPECIFIED;

struct Row {
  const char* name;
  v1::ClientFrame frame;
  v1::Reason before_hello;
  v1::Reason identifying;  // after the Hello, before the nonce
  v1::Reason open;
};

template <typename Fill>
v1::ClientFrame Frame(Fill fill) {
  v1::ClientFrame frame;
  fill(frame);
  return frame;
}

std::vector<Row> Table() {
  using F = v1::ClientFrame;
  constexpr v1::Reason kNone = v1::REASON_NO_SESSION;
  constexpr v1::Reason kOrder = v1::REASON_OUT_OF_ORDER;
  return {
      {"unset", F(), v1::REASON_INVALID_ARGUMENT, v1::REASON_INVALID_ARGUMENT,
       v1::REASON_INVALID_ARGUMENT},
      {"other version", Frame([](F& f) {
         f.mutable_hello()->set_version(static_cast<v1::ProtocolVersion>(2));
       }),
       v1::REASON_PROTOCOL_VERSION, kOrder, kOrder},
      {"no version", Frame([](F& f) { f.mutable_hello(); }),
       v1::REASON_PROTOCOL_VERSION, kOrder, kOrder},
      {"acquire", AcquireFrame(), kNone, kNone, kAnswered},
      {"claim", Frame([](F& f) { f.mutable_claim()->set_grant(99); }), kNone,
       kNone, v1::REASON_UNKNOWN_GRANT},
      {"release", Frame([](F& f) { f.mutable_release()->set_grant(99); }),
       kNone, kNone, v1::REASON_UNKNOWN_GRANT},
      {"list", Frame([](F& f) { f.mutable_list(); }), kNone, kNone, kAnswered},
      {"describe",
       Frame([](F& f) { f.mutable_describe()->set_program("sampler"); }), kNone,
       kNone, kAnswered},
      {"explain",
       Frame([](F& f) { f.mutable_explain()->set_program("sampler"); }), kNone,
       kNone, kAnswered},
      {"grants", Frame([](F& f) { f.mutable_grants(); }), kNone, kNone,
       kAnswered},
      {"watch", Frame([](F& f) { f.mutable_watch(); }), kNone, kNone,
       kAnswered},
      {"revoke", Frame([](F& f) { f.mutable_revoke()->set_all(true); }), kNone,
       kNone, v1::REASON_NOT_ADMINISTRATOR},
      {"reload", Frame([](F& f) { f.mutable_reload(); }), kNone, kNone,
       v1::REASON_NOT_ADMINISTRATOR},
      {"status", Frame([](F& f) { f.mutable_status(); }), kNone, kNone,
       kAnswered},
      // These change the state, so they come last.
      {"identify",
       Frame([](F& f) { f.mutable_identify()->set_nonce("wrong"); }), kOrder,
       v1::REASON_PEER_UNNAMED, kOrder},
      {"hello", HelloFrame(), kAnswered, kOrder, kOrder},
  };
}

class OrderTest : public WireTest {
 protected:
  void ExpectRow(RawPeer& peer, const Row& row, v1::Reason expected) {
    SCOPED_TRACE(row.name);
    const Holdings before = broker().Look();
    const RawPeer::Received reply = peer.Call(row.frame);
    EXPECT_EQ(reply.what, RawPeer::Received::What::kFrame);
    EXPECT_EQ(reply.frame.request(), peer.last_request());
    EXPECT_EQ(reply.reason(), expected) << reply.frame.ShortDebugString();
    EXPECT_EQ(reply.frame.has_refusal(), expected != kAnswered);
    if (expected == kAnswered) return;
    EXPECT_TRUE(reply.fds.empty());
    EXPECT_EQ(broker().Look(), before);
    EXPECT_EQ(broker().OpenGates(), 0u);
  }
};

TEST_F(OrderTest, BeforeTheHello) {
  Start();
  RawPeer peer = Connect();
  // The first frame's answer shows that the connection was accepted: from then
  // on its number does not change.
  ASSERT_EQ(peer.Call(v1::ClientFrame()).reason(), v1::REASON_INVALID_ARGUMENT);
  for (const Row& row : Table()) ExpectRow(peer, row, row.before_hello);
  ExpectPoliteIsServed();
}

TEST_F(OrderTest, AfterTheHello) {
  Start();
  for (const Row& row : Table()) {
    RawPeer peer = Open();
    ExpectRow(peer, row, row.open);
    peer.Close();
    ExpectNothingLeft();
    broker().Settle();
  }
  ExpectPoliteIsServed();
}

TEST_F(OrderTest, OneSessionThatDoesEverythingWrong) {
  Start();
  RawPeer peer = Open();
  for (const Row& row : Table()) {
    if (row.open != kAnswered) ExpectRow(peer, row, row.open);
  }
  EXPECT_TRUE(peer.Acquire().frame.has_acquire());
}

TEST_F(OrderTest, BeforeTheHelloWhereANonceIsNeeded) {
  BrokerSetup setup;
  setup.identify = broker::IdentifyBy::kNonce;
  Start(std::move(setup));
  RawPeer peer = Connect();
  ASSERT_TRUE(peer.Receive().frame.has_challenge());
  for (const Row& row : Table()) {
    // The Hello is not answered before the nonce.
    if (row.before_hello != kAnswered) ExpectRow(peer, row, row.before_hello);
  }
}

TEST_F(OrderTest, WhileTheNonceIsWaitedFor) {
  BrokerSetup setup;
  setup.identify = broker::IdentifyBy::kNonce;
  Start(std::move(setup));
  RawPeer peer = Connect();
  ASSERT_TRUE(peer.Receive().frame.has_challenge());
  ASSERT_EQ(peer.Send(HelloFrame()), 0);
  for (const Row& row : Table()) {
    if (row.identifying == v1::REASON_PEER_UNNAMED) continue;
    ExpectRow(peer, row, row.identifying);
  }
  // A wrong nonce is no mistake of a correct client's.
  ASSERT_EQ(peer.Send(Frame([](v1::ClientFrame& frame) {
    frame.mutable_identify()->set_nonce(std::string(32, 'x'));
  })),
            0);
  EXPECT_TRUE(peer.SeesEnd());
  ExpectNothingLeft();
}

TEST_F(OrderTest, SecondWatchIsRefused) {
  Start();
  RawPeer peer = Open();
  v1::ClientFrame watch;
  watch.mutable_watch();
  EXPECT_TRUE(peer.Call(watch).frame.has_watch());
  EXPECT_EQ(peer.Call(watch).reason(), v1::REASON_OUT_OF_ORDER);
}

// All at once, without waiting for an answer.
TEST_F(OrderTest, PipelinedFromTheStart) {
  Start();
  RawPeer peer = Connect();
  ASSERT_EQ(peer.Send(AcquireFrame()), 0);
  ASSERT_EQ(peer.Send(HelloFrame()), 0);
  ASSERT_EQ(peer.Send(AcquireFrame()), 0);
  EXPECT_EQ(peer.Receive().reason(), v1::REASON_NO_SESSION);
  EXPECT_TRUE(peer.Receive().frame.has_hello());
  EXPECT_TRUE(peer.Receive().frame.has_acquire());
  EXPECT_EQ(broker().Look().grants, 1u);
}

}  // namespace
}  // namespace bpfgrant::broker_test
