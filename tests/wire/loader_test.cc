// What clients get to see of a loader that is slow, silent, refusing, lying, or
// gone.

#include <vector>

#include "gtest/gtest.h"
#include "proto/wire/limits.h"
#include "tests/wire/broker_fixture.h"

namespace bpfgrant::broker_test {
namespace {

using Mode = ScriptedLoader::Mode;
using Parts = TestBroker::Parts;

class LoaderTest : public WireTest {
 protected:
  // `sampler` and `tap` with nothing ready, so that each Acquire is a load.
  void StartEmpty() {
    TestProgram sampler;
    sampler.pool = 0;
    TestProgram tap;
    tap.name = "tap";
    tap.handles = 0;
    tap.pool = 0;
    BrokerSetup setup;
    setup.catalog =
        Catalog({sampler, tap}, {Allow("sampler", 100), Allow("tap", 100)});
    Start(std::move(setup));
  }
  void SetLoad(Mode mode) {
    broker().Ask([mode](Parts& parts) { parts.scripted.load = mode; });
  }
  void SetAttach(Mode mode) {
    broker().Ask([mode](Parts& parts) { parts.scripted.attach = mode; });
  }
  void WaitForHeld(size_t count) {
    broker().WaitUntil("the loader has it", [count](Parts& parts) {
      return parts.scripted.held() == count;
    });
  }
  void AnswerHeld() {
    broker().Ask([](Parts& parts) { parts.scripted.AnswerHeld(); });
  }
  RawPeer::Received Attach(RawPeer& peer) {
    const UniqueFd fd = Sendable();
    const int fds[] = {fd.get()};
    return peer.Call(AttachFrame(), fds);
  }
  static v1::ClientFrame AttachFrame() {
    v1::ClientFrame frame = AcquireFrame();
    frame.mutable_acquire()->set_delivery(v1::DELIVERY_ATTACH);
    return frame;
  }
  void ExpectNoGatesInUse() { EXPECT_EQ(broker().Look().gates, 0u); }
};

TEST_F(LoaderTest, RefusalReachesTheClientAndFreesTheGate) {
  StartEmpty();
  SetLoad(Mode::kRefuse);
  RawPeer peer = Open();
  EXPECT_EQ(peer.Acquire().reason(), v1::REASON_LOAD_FAILED);
  EXPECT_EQ(broker().Look().grants, 0u);
  ExpectNoGatesInUse();
  SetLoad(Mode::kAnswer);
  EXPECT_TRUE(peer.Acquire().frame.has_acquire());
}

TEST_F(LoaderTest, OtherFdsThanTheCatalogsAreRefused) {
  StartEmpty();
  RawPeer peer = Open();
  for (const Mode mode : {Mode::kFewerFds, Mode::kMoreFds}) {
    SetLoad(mode);
    EXPECT_EQ(peer.Acquire().reason(), v1::REASON_INTERNAL);
    EXPECT_EQ(broker().Look().grants, 0u);
    ExpectNoGatesInUse();
  }
}

TEST_F(LoaderTest, NonsenseOrDeathIsTheEndOfTheLoader) {
  for (const Mode mode : {Mode::kTooManyFds, Mode::kNonsense, Mode::kDie}) {
    StartEmpty();
    SetLoad(mode);
    RawPeer peer = Open();
    ASSERT_EQ(peer.Send(AcquireFrame()), 0);
    broker().WaitUntil("the broker knows",
                       [](Parts& parts) { return parts.loader_lost; });
    // As it stops then, every session ends.
    broker().Ask([](Parts& parts) {
      parts.acceptor.Stop();
      parts.loader.Abandon();
    });
    EXPECT_TRUE(peer.SeesEnd());
    ExpectNothingLeft();
    ExpectNoGatesInUse();
  }
}

TEST_F(LoaderTest, OneSessionCanWaitForSoManyOnly) {
  StartEmpty();
  SetLoad(Mode::kSilent);
  RawPeer peer = Open();
  for (size_t i = 0; i < kMaxPendingPerSession; ++i) {
    ASSERT_EQ(peer.Send(AcquireFrame()), 0);
  }
  EXPECT_EQ(peer.Acquire().reason(), v1::REASON_BUSY);
  AnswerHeld();
  for (size_t i = 0; i < kMaxPendingPerSession; ++i) {
    EXPECT_TRUE(peer.Receive().frame.has_acquire());
  }
}

TEST_F(LoaderTest, OneUserCanWaitForSoManyOnly) {
  StartEmpty();
  SetLoad(Mode::kSilent);
  std::vector<RawPeer> peers;
  for (size_t waiting = 0; waiting < kMaxPendingPerUser;
       waiting += kMaxPendingPerSession) {
    peers.push_back(Open());
    for (size_t i = 0; i < kMaxPendingPerSession; ++i) {
      ASSERT_EQ(peers.back().Send(AcquireFrame()), 0);
    }
  }
  broker().WaitUntil("they all wait", [](Parts& parts) {
    return parts.ledger.size() == kMaxPendingPerUser;
  });
  EXPECT_EQ(Open().Acquire().reason(), v1::REASON_BUSY);
  AnswerHeld();
  for (RawPeer& peer : peers) {
    for (size_t i = 0; i < kMaxPendingPerSession; ++i) {
      EXPECT_TRUE(peer.Receive().frame.has_acquire());
    }
  }
  EXPECT_TRUE(Open().Acquire().frame.has_acquire());
}

// The instance comes when nobody is there any more.
TEST_F(LoaderTest, InstanceForASessionThatIsGoneRunsForNobody) {
  StartEmpty();
  SetLoad(Mode::kSilent);
  {
    RawPeer peer = Open();
    ASSERT_EQ(peer.Send(AcquireFrame()), 0);
    WaitForHeld(1);
    EXPECT_EQ(broker().Look().grants, 1u);
  }
  ExpectNothingLeft();
  EXPECT_EQ(broker().Look().gates, 1u);
  AnswerHeld();
  broker().Settle();
  EXPECT_EQ(broker().OpenGates(), 0u);
  // It was not used, so it can be somebody's yet.
  const size_t loads = broker().Look().loads;
  RawPeer next = Open();
  EXPECT_TRUE(next.Acquire().frame.has_acquire());
  EXPECT_EQ(broker().Look().loads, loads);
}

TEST_F(LoaderTest, RequestThatWaitsIsAnsweredWhenItsGrantIsReleased) {
  StartEmpty();
  SetLoad(Mode::kSilent);
  RawPeer peer = Open();
  ASSERT_EQ(peer.Send(AcquireFrame()), 0);
  WaitForHeld(1);
  v1::ClientFrame release;
  // Ids can be guessed; this one is the peer's own.
  release.mutable_release()->set_grant(1);
  EXPECT_EQ(peer.Call(release).reason(), v1::REASON_SESSION_ENDED);
  EXPECT_TRUE(peer.Receive().frame.has_release());
  EXPECT_EQ(broker().Look().grants, 0u);
}

TEST_F(LoaderTest, AttachmentTakesTheSocketAndGivesTheHandles) {
  StartEmpty();
  RawPeer peer = Open();
  const RawPeer::Received reply = Attach(peer);
  EXPECT_EQ(reply.frame.acquire().delivery(), v1::DELIVERY_ATTACH);
  EXPECT_EQ(reply.fds.size(), 1u);
  EXPECT_EQ(broker().OpenGates(), 1u);
  EXPECT_EQ(
      broker().Ask([](Parts& parts) { return parts.scripted.attach_fds(); }),
      std::vector<size_t>{2});
}

TEST_F(LoaderTest, AttachmentWithoutASocketIsRefused) {
  StartEmpty();
  RawPeer peer = Open();
  EXPECT_EQ(peer.Call(AttachFrame()).reason(), v1::REASON_SOCKET_NEEDED);
  EXPECT_EQ(broker().Look().total, 0u);
}

TEST_F(LoaderTest, RefusedAttachmentLeavesNothing) {
  StartEmpty();
  SetAttach(Mode::kRefuse);
  RawPeer peer = Open();
  EXPECT_EQ(Attach(peer).reason(), v1::REASON_ATTACH_FAILED);
  EXPECT_EQ(broker().Look().grants, 0u);
  ExpectNoGatesInUse();
}

TEST_F(LoaderTest, AttachmentThatIsNeverAnsweredIsGivenUp) {
  StartEmpty();
  SetAttach(Mode::kSilent);
  RawPeer peer = Open();
  EXPECT_EQ(Attach(peer).reason(), v1::REASON_BUSY);
  EXPECT_EQ(broker().Look().grants, 0u);
  ExpectNoGatesInUse();
  // Too late: it finds nobody.
  AnswerHeld();
  EXPECT_TRUE(peer.Acquire().frame.has_acquire());
  EXPECT_EQ(broker().OpenGates(), 1u);
}

TEST_F(LoaderTest, AttachmentForASessionThatIsGoneStaysShut) {
  StartEmpty();
  SetAttach(Mode::kSilent);
  {
    RawPeer peer = Open();
    const UniqueFd fd = Sendable();
    const int fds[] = {fd.get()};
    ASSERT_EQ(peer.Send(AttachFrame(), fds), 0);
    WaitForHeld(1);
  }
  ExpectNothingLeft();
  AnswerHeld();
  broker().Settle();
  EXPECT_EQ(broker().OpenGates(), 0u);
  ExpectNoGatesInUse();
}

TEST_F(LoaderTest, OutOfGatesIsBusyAndOverWhenOneIsFree) {
  TestProgram sampler;
  sampler.pool = 0;
  BrokerSetup setup;
  setup.gate_slots = 2;
  setup.catalog = Catalog({sampler}, {Allow("sampler", 100)});
  Start(std::move(setup));
  RawPeer peer = Open();
  const uint64_t first = peer.Acquire().frame.acquire().grant();
  EXPECT_TRUE(peer.Acquire().frame.has_acquire());
  EXPECT_EQ(peer.Acquire().reason(), v1::REASON_BUSY);
  v1::ClientFrame release;
  release.mutable_release()->set_grant(first);
  EXPECT_TRUE(peer.Call(release).frame.has_release());
  EXPECT_TRUE(peer.Acquire().frame.has_acquire());
}

}  // namespace
}  // namespace bpfgrant::broker_test
