// Peers that ask and do not read.

#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "proto/wire/limits.h"
#include "tests/wire/broker_fixture.h"
#include "tests/wire/fd_limit.h"
#include "tests/wire/moment.h"

namespace bpfgrant::broker_test {
namespace {

using std::chrono::milliseconds;

// Keeps the loop from doing anything, so that what is in a socket stays as it
// is while it is counted.
class LoopHold {
 public:
  explicit LoopHold(TestBroker& broker) {
    broker.Ask([this](TestBroker::Parts& parts) {
      parts.loop.Post([this] {
        held_.Happen();
        free_.Wait();
        gone_.Happen();
      });
    });
    held_.Wait();
  }
  ~LoopHold() {
    free_.Happen();
    gone_.Wait();
  }

 private:
  Moment held_;
  Moment free_;
  Moment gone_;
};

struct Unread {
  size_t frames = 0;
  size_t fds = 0;
};

class SlowReaderTest : public WireTest {
 protected:
  // Sends `count` Acquires at once, or as many as there is room for.
  static void Pipeline(RawPeer& peer, int count,
                       const std::string& program = "tap") {
    for (int i = 0; i < count; ++i) {
      if (peer.TrySend(AcquireFrame(program)) != 0) return;
    }
  }
  // So many instances of `tap` that nobody waits for one.
  static BrokerSetup Ready(uint32_t count) {
    TestProgram tap;
    tap.name = "tap";
    tap.handles = 0;
    tap.pool = count;
    BrokerSetup setup;
    setup.catalog = Catalog({tap, TestProgram()},
                            {Allow("tap", 10'000), Allow("sampler", 10'000)});
    return setup;
  }
  // Reads all that is there and counts the frames with fds.
  static Unread Drain(RawPeer& peer) {
    Unread unread;
    for (;;) {
      const RawPeer::Received received = peer.Receive(milliseconds(0));
      if (received.what != RawPeer::Received::What::kFrame) return unread;
      unread.frames += !received.fds.empty();
      unread.fds += received.fds.size();
    }
  }
  // Until the broker has nothing more to do.
  void WaitForStall() {
    Holdings seen = broker().Look();
    for (int same = 0; same < 20;) {
      std::this_thread::sleep_for(milliseconds(2));
      const Holdings now = broker().Look();
      same = now == seen ? same + 1 : 0;
      seen = now;
    }
    broker().Settle();
  }
};

TEST_F(SlowReaderTest, HasAtMostOneReplyWithFdsUnread) {
  Start(Ready(300));
  RawPeer peer = Open();
  Pipeline(peer, 200);
  WaitForStall();
  // One sent, one that waits to be sent: more is not even read.
  EXPECT_EQ(broker().Look().grants, 2u);
  {
    LoopHold hold(broker());
    EXPECT_EQ(Drain(peer).frames, 1u);
  }
  // Whoever reads after all gets all of them.
  size_t got = 1;
  while (got < 200) {
    const RawPeer::Received reply = peer.Receive();
    ASSERT_TRUE(reply.frame.has_acquire());
    got += !reply.fds.empty();
  }
  EXPECT_EQ(broker().OpenGates(), 200u);
}

TEST_F(SlowReaderTest, PilesUpRepliesWithFds_WithoutMitigation) {
  StartWithout(&daemon::Mitigations::unread_fd_limit, Ready(60));
  RawPeer peer = Open();
  Pipeline(peer, 60);
  WaitForStall();
  EXPECT_EQ(broker().Look().grants, 60u);
  LoopHold hold(broker());
  EXPECT_EQ(Drain(peer).frames, 60u);
}

TEST_F(SlowReaderTest, CostsNoTimeWhileItDoesNotRead) {
  Start();
  std::vector<RawPeer> peers;
  for (int i = 0; i < 10; ++i) {
    peers.push_back(Open());
    Pipeline(peers.back(), 20);
  }
  WaitForStall();
  const auto before = broker().LoopTime();
  std::this_thread::sleep_for(milliseconds(300));
  EXPECT_LT(broker().LoopTime() - before, milliseconds(60));
}

// A request that waits for the loader when the stall begins is served into the
// queue, not into the socket.
TEST_F(SlowReaderTest, GetsNoMoreThanWhatIsPending) {
  Start(Ready(0));
  broker().Ask([](TestBroker::Parts& parts) {
    parts.scripted.load = ScriptedLoader::Mode::kSilent;
  });
  RawPeer peer = Open();
  Pipeline(peer, 200);
  broker().WaitUntil("as many wait as may", [](TestBroker::Parts& parts) {
    return parts.ledger.size() == kMaxPendingPerSession;
  });
  broker().Ask([](TestBroker::Parts& parts) { parts.scripted.AnswerHeld(); });
  WaitForStall();
  EXPECT_LE(broker().Look().grants, kMaxPendingPerSession + 1);
  LoopHold hold(broker());
  EXPECT_LE(Drain(peer).frames, 1u);
}

TEST_F(SlowReaderTest, TwoThousandBesideAPoliteOne) {
  FdLimit most(FdLimit::Most());
  // Of each peer: both ends, the pidfd, and the fd that waits to be sent;
  // beside them, what is ready.
  const size_t count = std::min<size_t>(2000, (FdLimit::Most() - 4600) / 4);
  RecordProperty("peers", static_cast<int>(count));
  Start(Ready(3000));
  std::vector<RawPeer> peers;
  for (size_t i = 0; i < count; ++i) {
    peers.push_back(Open(Self()));
    Pipeline(peers.back(), 8);
  }
  WaitForStall();
  EXPECT_EQ(broker().Look().grants, 2 * count);
  {
    RawPeer polite = Open(Self());
    for (int i = 0; i < 100; ++i) {
      const auto began = std::chrono::steady_clock::now();
      const RawPeer::Received reply = polite.Acquire();
      EXPECT_TRUE(reply.frame.has_acquire()) << reply.frame.ShortDebugString();
      EXPECT_LT(std::chrono::steady_clock::now() - began,
                std::chrono::seconds(2));
    }
  }
  LoopHold hold(broker());
  Unread unread;
  for (RawPeer& peer : peers) {
    const Unread its = Drain(peer);
    EXPECT_EQ(its.frames, 1u);
    unread.fds += its.fds;
  }
  EXPECT_LE(unread.fds, kMaxUnreadFdsPerUser);
}

TEST_F(SlowReaderTest, ManyPassTheLimitOfFdsInFlight_WithoutMitigation) {
  FdLimit most(FdLimit::Most());
  StartWithout(&daemon::Mitigations::unread_fd_limit, Ready(3000));
  std::vector<RawPeer> peers;
  for (int i = 0; i < 60; ++i) {
    peers.push_back(Open(Self()));
    Pipeline(peers.back(), 50);
  }
  WaitForStall();
  LoopHold hold(broker());
  size_t fds = 0;
  for (RawPeer& peer : peers) fds += Drain(peer).fds;
  EXPECT_GT(fds, kMaxUnreadFdsPerUser);
}

// Replies with many fds each: a user's share is used up by a hundred sessions.
class ShareTest : public SlowReaderTest {
 protected:
  static BrokerSetup Wide() {
    TestProgram wide;
    wide.name = "wide";
    wide.handles = kMaxFdsPerGrant - 1;
    wide.pool = 8;
    BrokerSetup setup;
    setup.catalog = Catalog({wide, TestProgram()},
                            {Allow("wide", 10'000), Allow("sampler", 10'000)});
    return setup;
  }
  // Sessions that it takes to use up the share of a user.
  static constexpr size_t kSessions = kMaxUnreadFdsPerUser / kMaxFdsPerGrant;

  std::vector<RawPeer> UseUp(size_t sessions = kSessions) {
    std::vector<RawPeer> peers;
    for (size_t i = 0; i < sessions; ++i) {
      peers.push_back(Open());
      EXPECT_EQ(peers.back().Send(AcquireFrame("wide")), 0);
    }
    WaitForStall();
    return peers;
  }
};

TEST_F(ShareTest, IsLimitedAndComesBackWhenRead) {
  FdLimit most(FdLimit::Most());
  Start(Wide());
  std::vector<RawPeer> peers = UseUp();
  RawPeer one_more = Open();
  EXPECT_EQ(one_more.Acquire().reason(), v1::REASON_TOO_MANY_UNREAD_FDS);
  EXPECT_EQ(one_more.Acquire("wide").reason(), v1::REASON_TOO_MANY_UNREAD_FDS);
  if (getuid() == 0) {
    RawPeer other = Open(Self());
    EXPECT_TRUE(other.Acquire().frame.has_acquire());
  }
  EXPECT_EQ(Drain(peers[0]).fds, kMaxFdsPerGrant);
  // The broker looks again at most every 20 ms.
  std::this_thread::sleep_for(milliseconds(50));
  EXPECT_TRUE(one_more.Acquire().frame.has_acquire());
}

TEST_F(ShareTest, IsNotLimited_WithoutMitigation) {
  FdLimit most(FdLimit::Most());
  StartWithout(&daemon::Mitigations::unread_fd_limit, Wide());
  std::vector<RawPeer> peers = UseUp(kSessions + 20);
  LoopHold hold(broker());
  size_t fds = 0;
  for (RawPeer& peer : peers) fds += Drain(peer).fds;
  EXPECT_GT(fds, kMaxUnreadFdsPerUser);
}

// An ended session's fds are as much in flight as before, as long as the peer
// keeps its end of the socket.
TEST_F(ShareTest, CountsWhatEndedSessionsDidNotRead) {
  FdLimit most(FdLimit::Most());
  Start(Wide());
  std::vector<RawPeer> peers = UseUp();
  for (RawPeer& peer : peers) ASSERT_EQ(peer.Send("\xff"), 0);
  WaitForStall();
  EXPECT_EQ(broker().Look().grants, 0u);
  RawPeer one_more = Open();
  EXPECT_EQ(one_more.Acquire("wide").reason(), v1::REASON_TOO_MANY_UNREAD_FDS);
  // Closing them is as good as reading.
  peers.clear();
  std::this_thread::sleep_for(milliseconds(50));
  EXPECT_TRUE(one_more.Acquire("wide").frame.has_acquire());
}

TEST_F(ShareTest, EndedSessionsPileUpFdsInFlight_WithoutMitigation) {
  FdLimit most(FdLimit::Most());
  StartWithout(&daemon::Mitigations::unread_fd_limit, Wide());
  std::vector<RawPeer> peers = UseUp();
  for (RawPeer& peer : peers) ASSERT_EQ(peer.Send("\xff"), 0);
  broker().WaitUntil("they are gone", [](TestBroker::Parts& parts) {
    return parts.acceptor.size() == 0;
  });
  std::vector<RawPeer> more = UseUp(20);
  LoopHold hold(broker());
  size_t fds = 0;
  for (RawPeer& peer : peers) fds += Drain(peer).fds;
  for (RawPeer& peer : more) fds += Drain(peer).fds;
  EXPECT_GT(fds, kMaxUnreadFdsPerUser);
}

}  // namespace
}  // namespace bpfgrant::broker_test
