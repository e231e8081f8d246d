// Who hears of what, and what becomes of who does not listen.

#include <vector>

#include "gtest/gtest.h"
#include "proto/wire/limits.h"
#include "tests/wire/broker_fixture.h"

namespace bpfgrant::broker_test {
namespace {

using Parts = TestBroker::Parts;

class WatchTest : public WireTest {
 protected:
  RawPeer Watcher(User user = Ordinary()) {
    RawPeer peer = Open(user);
    v1::ClientFrame frame;
    frame.mutable_watch();
    EXPECT_TRUE(peer.Call(frame).frame.has_watch());
    return peer;
  }
  static void AcquireAndRelease(RawPeer& peer) {
    v1::ClientFrame frame;
    frame.mutable_release()->set_grant(peer.Acquire().frame.acquire().grant());
    ASSERT_TRUE(peer.Call(frame).frame.has_release());
  }
  static void ExpectBeginAndEnd(RawPeer& watcher, const RawPeer& of) {
    for (const auto type :
         {v1::Event::TYPE_GRANT_BEGAN, v1::Event::TYPE_GRANT_ENDED}) {
      const v1::Event event = watcher.Receive().frame.event();
      EXPECT_EQ(event.type(), type);
      EXPECT_EQ(event.grant().session(), of.hello().session());
      EXPECT_GT(event.at_unix_ms(), 0);
    }
  }
  static bool HearsNothing(RawPeer& watcher) {
    return watcher.Receive(std::chrono::milliseconds(50)).what ==
           RawPeer::Received::What::kNothing;
  }
};

TEST_F(WatchTest, TellsOfTheOwnUsersGrants) {
  Start();
  RawPeer watcher = Watcher();
  RawPeer deaf = Open();
  RawPeer peer = Open();
  AcquireAndRelease(peer);
  ExpectBeginAndEnd(watcher, peer);
  EXPECT_TRUE(HearsNothing(deaf));
}

TEST_F(WatchTest, TellsNothingOfOtherUsersGrants) {
  if (getuid() != 0) GTEST_SKIP() << "needs root for a second user";
  Start();
  RawPeer watcher = Watcher();
  RawPeer administrator = Watcher(Self());
  RawPeer other = Open({65533, 65533});
  AcquireAndRelease(other);
  ExpectBeginAndEnd(administrator, other);
  EXPECT_TRUE(HearsNothing(watcher));
}

TEST_F(WatchTest, OwnEventsComeOnceEach) {
  Start();
  RawPeer peer = Watcher();
  ASSERT_EQ(peer.Send(AcquireFrame()), 0);
  int began = 0;
  uint64_t grant = 0;
  while (began == 0 || grant == 0) {
    const RawPeer::Received received = peer.Receive();
    ASSERT_EQ(received.what, RawPeer::Received::What::kFrame);
    began += received.frame.has_event();
    if (received.frame.has_acquire()) {
      grant = received.frame.acquire().grant();
    }
  }
  v1::ClientFrame release;
  release.mutable_release()->set_grant(grant);
  ASSERT_EQ(peer.Send(release), 0);
  const v1::Event ended = peer.Receive().frame.event();
  EXPECT_EQ(ended.reason(), v1::REASON_RELEASED);
  EXPECT_TRUE(peer.Receive().frame.has_release());
  EXPECT_TRUE(HearsNothing(peer));
}

TEST_F(WatchTest, EndOfASessionIsTold) {
  Start();
  RawPeer watcher = Watcher();
  {
    RawPeer peer = Open();
    ASSERT_TRUE(peer.Acquire().frame.has_acquire());
  }
  EXPECT_EQ(watcher.Receive().frame.event().type(),
            v1::Event::TYPE_GRANT_BEGAN);
  EXPECT_EQ(watcher.Receive().frame.event().reason(), v1::REASON_SESSION_ENDED);
}

// Each event is copied to each watcher.
TEST_F(WatchTest, WatchersOfOneUserAreLimited) {
  Start();
  std::vector<RawPeer> watchers;
  for (size_t i = 0; i < kMaxWatchersPerUser; ++i) {
    watchers.push_back(Watcher());
  }
  RawPeer one_more = Open();
  v1::ClientFrame frame;
  frame.mutable_watch();
  EXPECT_EQ(one_more.Call(frame).reason(), v1::REASON_BUSY);
  watchers.pop_back();
  broker().WaitUntil("one is gone", [](Parts& parts) {
    return parts.acceptor.size() == kMaxWatchersPerUser;
  });
  EXPECT_TRUE(one_more.Call(frame).frame.has_watch());
}

// Events that nobody reads fill the socket, then the queue, then the cup.
TEST_F(WatchTest, WatcherThatDoesNotReadIsEndedAlone) {
  Start();
  RawPeer good = Watcher();
  RawPeer slow = Watcher();
  RawPeer peer = Open();
  ASSERT_TRUE(slow.Acquire().frame.has_acquire());
  const auto sessions = [this] { return broker().Look().sessions; };
  int rounds = 0;
  while (sessions() == 3 && rounds < 2000) {
    AcquireAndRelease(peer);
    ++rounds;
    while (good.Receive(std::chrono::milliseconds(0)).what ==
           RawPeer::Received::What::kFrame) {
    }
  }
  EXPECT_LT(rounds, 2000);
  EXPECT_TRUE(slow.SeesEnd());
  // With its grant.
  EXPECT_EQ(broker().OpenGates(), 0u);
  AcquireAndRelease(peer);
  EXPECT_EQ(good.Receive().what, RawPeer::Received::What::kFrame);
}

}  // namespace
}  // namespace bpfgrant::broker_test
