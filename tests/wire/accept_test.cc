// How many may connect, how long they may keep silent, and what happens when
// the broker runs out of fds.

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/wire/broker_fixture.h"
#include "tests/wire/fd_limit.h"

namespace bpfgrant::broker_test {
namespace {

using std::chrono::milliseconds;

class AcceptTest : public WireTest {
 protected:
  static BrokerSetup Handshake(milliseconds deadline) {
    BrokerSetup setup;
    setup.limits.handshake = deadline;
    return setup;
  }
  static BrokerSetup Sessions(size_t all, size_t per_user) {
    BrokerSetup setup;
    setup.limits.sessions = all;
    setup.limits.sessions_per_user = per_user;
    return setup;
  }
  // That one more is turned away, with its reason and an end.
  void ExpectTurnedAway(User user = Ordinary()) {
    RawPeer peer = Connect(user);
    EXPECT_EQ(peer.Receive().reason(), v1::REASON_TOO_MANY_SESSIONS);
    EXPECT_TRUE(peer.SeesEnd());
  }
};

// Looks at the listener, which is an fd of this process.
bool ListenerPassesCredentials(const std::string& address) {
  for (int fd = 0; fd < 1024; ++fd) {
    int listens = 0;
    int passes = 0;
    socklen_t length = sizeof(int);
    sockaddr_un name{};
    socklen_t name_length = sizeof(name);
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) < 0 ||
        listens == 0 ||
        getsockname(fd, reinterpret_cast<sockaddr*>(&name), &name_length) < 0 ||
        address != std::string(name.sun_path, address.size())) {
      continue;
    }
    getsockopt(fd, SOL_SOCKET, SO_PASSCRED, &passes, &length);
    return passes != 0;
  }
  return false;
}

TEST_F(AcceptTest, PeerThatSaysNothingIsDropped) {
  Start(Handshake(milliseconds(200)));
  RawPeer polite = Open();
  RawPeer silent = Connect();
  RawPeer talks = Connect();
  // Saying something is not saying Hello.
  ASSERT_EQ(talks.Call(v1::ClientFrame()).reason(),
            v1::REASON_INVALID_ARGUMENT);
  EXPECT_TRUE(silent.SeesEnd());
  EXPECT_TRUE(talks.SeesEnd());
  EXPECT_EQ(broker().Refusals(v1::REASON_TIMED_OUT), 2u);
  EXPECT_TRUE(polite.Acquire().frame.has_acquire());
}

TEST_F(AcceptTest, PeerThatSaysNothingStays_WithoutMitigation) {
  StartWithout(&daemon::Mitigations::handshake_deadline,
               Handshake(milliseconds(200)));
  RawPeer silent = Connect();
  // More than the deadline and the slack that timers have.
  EXPECT_FALSE(silent.SeesEnd(milliseconds(800)));
  EXPECT_EQ(broker().Look().sessions, 1u);
}

TEST_F(AcceptTest, SessionsOfOneUserAreLimited) {
  Start(Sessions(100, 3));
  std::vector<RawPeer> peers;
  for (int i = 0; i < 3; ++i) peers.push_back(Open());
  ExpectTurnedAway();
  EXPECT_EQ(broker().Refusals(v1::REASON_TOO_MANY_SESSIONS), 1u);
  EXPECT_EQ(broker().Look().sessions, 3u);
  peers.pop_back();
  broker().WaitUntil("one is gone", [](TestBroker::Parts& parts) {
    return parts.acceptor.size() == 2;
  });
  ExpectPoliteIsServed();
}

TEST_F(AcceptTest, SessionsOfOneUserAreNotLimited_WithoutMitigation) {
  StartWithout(&daemon::Mitigations::quotas, Sessions(100, 3));
  std::vector<RawPeer> peers;
  for (int i = 0; i < 20; ++i) peers.push_back(Open());
  EXPECT_EQ(broker().Look().sessions, 20u);
}

TEST_F(AcceptTest, SessionsInAllAreLimited) {
  Start(Sessions(5, 100));
  std::vector<RawPeer> peers;
  for (int i = 0; i < 5; ++i) peers.push_back(Open());
  ExpectTurnedAway();
  EXPECT_EQ(broker().Look().sessions, 5u);
}

TEST_F(AcceptTest, SessionsInAllAreNotLimited_WithoutMitigation) {
  StartWithout(&daemon::Mitigations::quotas, Sessions(5, 100));
  std::vector<RawPeer> peers;
  for (int i = 0; i < 20; ++i) peers.push_back(Open());
  EXPECT_EQ(broker().Look().sessions, 20u);
}

TEST_F(AcceptTest, OneUserAtItsLimitDoesNotKeepAnotherOut) {
  if (getuid() != 0) GTEST_SKIP() << "needs root for a second user";
  Start(Sessions(100, 3));
  std::vector<RawPeer> peers;
  for (int i = 0; i < 3; ++i) peers.push_back(Open());
  ExpectTurnedAway();
  RawPeer other = Open({65533, 65533});
  EXPECT_TRUE(other.Acquire().frame.has_acquire());
}

TEST_F(AcceptTest, LastPlacesAreRoots) {
  if (getuid() != 0) GTEST_SKIP() << "needs root for a second user";
  Start(Sessions(64, 64));
  std::vector<RawPeer> peers;
  for (int i = 0; i < 63; ++i) peers.push_back(Open());
  ExpectTurnedAway();
  RawPeer root = Open(Self());
  EXPECT_TRUE(root.hello().administrator());
  ExpectTurnedAway(Self());
}

TEST_F(AcceptTest, ThreeThousandOneAfterTheOther) {
  Start();
  const size_t before = CountOpenFds();
  for (int i = 0; i < 3000; ++i) RawPeer(broker().address(), Self());
  ExpectPoliteIsServed();
  ExpectNothingLeft();
  broker().Settle();
  EXPECT_EQ(CountOpenFds(), before);
}

TEST_F(AcceptTest, AThousandAtOnce) {
  FdLimit most(FdLimit::Most());
  Start();
  const size_t before = CountOpenFds();
  std::vector<std::unique_ptr<RawPeer>> peers;
  for (int i = 0; i < 1000; ++i) {
    peers.push_back(std::make_unique<RawPeer>(broker().address(), Self()));
  }
  ExpectPoliteIsServed();
  broker().WaitUntil("they are all in", [](TestBroker::Parts& parts) {
    return parts.acceptor.size() >= 1000;
  });
  peers.clear();
  ExpectNothingLeft();
  broker().Settle();
  EXPECT_EQ(CountOpenFds(), before);
}

// What a client says at the very moment it is accepted must arrive with its
// credentials, as what it says later does.
TEST_F(AcceptTest, HelloAtAnyMomentOfTheAcceptIsTaken) {
  Start();
  // Inherited with the accept; setting it afterwards would come too late for
  // about one Hello in 50,000.
  EXPECT_TRUE(ListenerPassesCredentials(broker().address()));
  int opened = 0;
  constexpr int kTries = 500;
  for (int i = 0; i < kTries; ++i) {
    RawPeer peer(broker().address(), Self());
    // From at once to later than the accept takes.
    const auto until = std::chrono::steady_clock::now() +
                       std::chrono::nanoseconds(200) * (i % 200);
    while (std::chrono::steady_clock::now() < until) {
    }
    opened += peer.Hello().frame.has_hello();
  }
  EXPECT_EQ(opened, kTries);
}

// The broker can accept nobody: it drops who comes instead of being woken for
// them again and again, and who is there stays.
TEST_F(AcceptTest, OutOfFdsNeitherSpinsNorDies) {
  Start();
  RawPeer polite = Open();
  std::vector<UniqueFd> sockets;
  for (int i = 0; i < 50; ++i) {
    sockets.emplace_back(
        socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  }
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  broker().address().copy(name.sun_path, sizeof(name.sun_path));
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) +
                                             broker().address().size());
  {
    FdLimit no_more;
    for (const UniqueFd& socket : sockets) {
      EXPECT_EQ(
          connect(socket.get(), reinterpret_cast<sockaddr*>(&name), length), 0);
    }
    for (const UniqueFd& socket : sockets) {
      pollfd watch{socket.get(), POLLIN, 0};
      EXPECT_EQ(poll(&watch, 1, static_cast<int>(kPatience.count())), 1);
      EXPECT_NE(watch.revents & POLLHUP, 0);
    }
    const auto before = broker().LoopTime();
    std::this_thread::sleep_for(milliseconds(200));
    EXPECT_LT(broker().LoopTime() - before, milliseconds(50));
    v1::ClientFrame status;
    status.mutable_status();
    EXPECT_TRUE(polite.Call(status).frame.has_status());
  }
  EXPECT_EQ(broker().Look().sessions, 1u);
  ExpectPoliteIsServed();
}

// Room for the connection but not for the pidfd: no fault of the peer's.
TEST_F(AcceptTest, NoFdForThePidfdIsTheBrokersShortage) {
  Start();
  UniqueFd client(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  broker().address().copy(name.sun_path, sizeof(name.sun_path));
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) +
                                             broker().address().size());
  v1::ServerFrame frame;
  {
    UniqueFd room = Sendable();
    FdLimit no_more;
    room.reset();
    ASSERT_EQ(connect(client.get(), reinterpret_cast<sockaddr*>(&name), length),
              0);
    pollfd watch{client.get(), POLLIN, 0};
    ASSERT_EQ(poll(&watch, 1, static_cast<int>(kPatience.count())), 1);
    char bytes[1024];
    const ssize_t got = recv(client.get(), bytes, sizeof(bytes), 0);
    ASSERT_GT(got, 0);
    ASSERT_TRUE(frame.ParseFromArray(bytes, static_cast<int>(got)));
  }
  EXPECT_EQ(frame.refusal().reason(), v1::REASON_BUSY)
      << frame.ShortDebugString();
}

}  // namespace
}  // namespace bpfgrant::broker_test
