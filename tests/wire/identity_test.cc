// Whose frames they are: each must come from the process that connected, and
// the session ends with it.

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <chrono>
#include <cstddef>
#include <string>

#include "gtest/gtest.h"
#include "tests/wire/broker_fixture.h"
#include "tests/wire/child.h"

namespace bpfgrant::broker_test {
namespace {

class IdentityTest : public WireTest {
 protected:
  static BrokerSetup Nonce() {
    BrokerSetup setup;
    setup.identify = broker::IdentifyBy::kNonce;
    setup.limits.handshake = std::chrono::milliseconds(200);
    return setup;
  }
  // Connects, takes the challenge and says Hello, which is not answered yet.
  RawPeer Challenged(std::string& nonce) {
    RawPeer peer = Connect(Self());
    nonce = peer.Receive().frame.challenge().nonce();
    EXPECT_EQ(nonce.size(), 32u);
    EXPECT_EQ(peer.Send(HelloFrame()), 0);
    return peer;
  }
  static v1::ClientFrame Identify(const std::string& nonce) {
    v1::ClientFrame frame;
    frame.mutable_identify()->set_nonce(nonce);
    return frame;
  }
  // Sends `frame` on `peer`'s socket from another process.
  static void SendFromChild(const RawPeer& peer, v1::ClientFrame frame) {
    frame.set_request(peer.last_request() + 1);
    const std::string bytes = frame.SerializeAsString();
    EXPECT_TRUE(InChild([&] {
      return send(peer.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL) > 0;
    }));
  }
};

TEST_F(IdentityTest, HelloSaysWhoTheKernelSaysItIs) {
  Start();
  RawPeer peer = Open();
  EXPECT_EQ(peer.hello().uid(), Ordinary().uid);
  EXPECT_EQ(peer.hello().gid(), Ordinary().gid);
  EXPECT_EQ(peer.hello().pid(), static_cast<uint32_t>(getpid()));
  EXPECT_FALSE(peer.hello().administrator());
  EXPECT_EQ(peer.hello().token().size(), 32u);
}

TEST_F(IdentityTest, MembersOfTheAdministratorsGroupAreAdministrators) {
  BrokerSetup setup;
  setup.administrator_group = Ordinary().gid;
  Start(std::move(setup));
  EXPECT_TRUE(Open().hello().administrator());
}

TEST_F(IdentityTest, FrameOfAnotherProcessEndsTheSession) {
  Start();
  RawPeer peer = Open(Self());
  ASSERT_TRUE(peer.Acquire().frame.has_acquire());
  EXPECT_EQ(broker().OpenGates(), 1u);
  SendFromChild(peer, AcquireFrame());
  EXPECT_TRUE(peer.SeesEnd());
  ExpectNothingLeft();
  EXPECT_EQ(broker().Look().total, 1u);
  ExpectPoliteIsServed();
}

TEST_F(IdentityTest, FrameOfAnotherProcessIsServed_WithoutMitigation) {
  StartWithout(&daemon::Mitigations::sender_check);
  RawPeer peer = Open(Self());
  SendFromChild(peer, AcquireFrame());
  EXPECT_TRUE(peer.Receive().frame.has_acquire());
  EXPECT_EQ(broker().Look().grants, 1u);
}

// As a program does that sends in another's name, where the kernel lets it.
TEST_F(IdentityTest, FrameInAnothersNameEndsTheSession) {
  if (getuid() != 0) GTEST_SKIP() << "needs root to name somebody else";
  Start();
  const Credentials others[] = {
      {1, getuid(), getgid()},
      {getpid(), 65533, getgid()},
      {getpid(), getuid(), 65533},
  };
  for (const Credentials& other : others) {
    RawPeer peer = Open(Self());
    v1::ClientFrame frame = AcquireFrame();
    frame.set_request(2);
    ASSERT_EQ(peer.SendWith(frame.SerializeAsString(), Control().From(other)),
              0);
    EXPECT_TRUE(peer.SeesEnd());
    ExpectNothingLeft();
  }
  EXPECT_EQ(broker().Look().total, 0u);
}

TEST_F(IdentityTest, FrameInAnothersNameIsServed_WithoutMitigation) {
  if (getuid() != 0) GTEST_SKIP() << "needs root to name somebody else";
  StartWithout(&daemon::Mitigations::sender_check);
  RawPeer peer = Open(Self());
  v1::ClientFrame frame = AcquireFrame();
  frame.set_request(2);
  ASSERT_EQ(peer.SendWith(frame.SerializeAsString(),
                          Control().From({getpid(), 65533, 65533})),
            0);
  EXPECT_TRUE(peer.Receive().frame.has_acquire());
}

// The broker's end of the only connection: an fd of this process.
int ServerSide(const std::string& address) {
  for (int fd = 0; fd < 1024; ++fd) {
    int listens = 1;
    socklen_t length = sizeof(int);
    sockaddr_un name{};
    socklen_t name_length = sizeof(name);
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) == 0 &&
        listens == 0 &&
        getsockname(fd, reinterpret_cast<sockaddr*>(&name), &name_length) ==
            0 &&
        name_length == offsetof(sockaddr_un, sun_path) + address.size() &&
        address == std::string(name.sun_path, address.size())) {
      return fd;
    }
  }
  return -1;
}

class NoCredentialsTest : public IdentityTest {
 protected:
  // A frame of the peer's that the kernel tells nothing about.
  void SendUnnamed(RawPeer& peer) {
    const int off = 0;
    ASSERT_EQ(setsockopt(ServerSide(broker().address()), SOL_SOCKET,
                         SO_PASSCRED, &off, sizeof(off)),
              0);
    ASSERT_EQ(peer.Send(AcquireFrame()), 0);
  }
};

TEST_F(NoCredentialsTest, FrameEndsTheSession) {
  Start();
  RawPeer peer = Open(Self());
  SendUnnamed(peer);
  EXPECT_TRUE(peer.SeesEnd());
  ExpectNothingLeft();
  EXPECT_EQ(broker().Look().total, 0u);
}

TEST_F(NoCredentialsTest, FrameIsServed_WithoutMitigation) {
  StartWithout(&daemon::Mitigations::sender_check);
  RawPeer peer = Open(Self());
  SendUnnamed(peer);
  EXPECT_TRUE(peer.Receive().frame.has_acquire());
}

TEST_F(IdentityTest, NonceThatComesBackOpensTheSession) {
  Start(Nonce());
  std::string nonce;
  RawPeer peer = Challenged(nonce);
  const uint64_t hello = peer.last_request();
  const RawPeer::Received reply = peer.Call(Identify(nonce));
  EXPECT_TRUE(reply.frame.has_hello());
  EXPECT_EQ(reply.frame.request(), hello);
  EXPECT_TRUE(peer.Acquire().frame.has_acquire());
  EXPECT_EQ(peer.Call(Identify(nonce)).reason(), v1::REASON_OUT_OF_ORDER);
}

TEST_F(IdentityTest, WrongNonceEndsTheConnection) {
  Start(Nonce());
  for (const int wrong : {0, 1, 2, 3}) {
    SCOPED_TRACE(wrong);
    std::string nonce;
    RawPeer peer = Challenged(nonce);
    if (wrong == 0) nonce.clear();
    if (wrong == 1) nonce.pop_back();
    if (wrong == 2) nonce += 'x';
    if (wrong == 3) nonce[31] ^= 1;
    ASSERT_EQ(peer.Send(Identify(nonce)), 0);
    EXPECT_TRUE(peer.SeesEnd());
  }
  ExpectNothingLeft();
}

TEST_F(IdentityTest, NonceOfAnotherConnectionEndsTheConnection) {
  Start(Nonce());
  std::string first;
  std::string second;
  RawPeer a = Challenged(first);
  RawPeer b = Challenged(second);
  EXPECT_NE(first, second);
  ASSERT_EQ(b.Send(Identify(first)), 0);
  EXPECT_TRUE(b.SeesEnd());
  EXPECT_TRUE(a.Call(Identify(first)).frame.has_hello());
}

TEST_F(IdentityTest, NonceFromAnotherProcessEndsTheConnection) {
  Start(Nonce());
  std::string nonce;
  RawPeer peer = Challenged(nonce);
  SendFromChild(peer, Identify(nonce));
  EXPECT_TRUE(peer.SeesEnd());
  ExpectNothingLeft();
}

TEST_F(IdentityTest, NonceFromAnotherProcessOpens_WithoutMitigation) {
  StartWithout(&daemon::Mitigations::sender_check, Nonce());
  std::string nonce;
  RawPeer peer = Challenged(nonce);
  SendFromChild(peer, Identify(nonce));
  EXPECT_TRUE(peer.Receive().frame.has_hello());
}

TEST_F(IdentityTest, NonceThatDoesNotComeBackInTimeEndsTheConnection) {
  Start(Nonce());
  std::string nonce;
  RawPeer peer = Challenged(nonce);
  EXPECT_TRUE(peer.SeesEnd());
  EXPECT_EQ(broker().Refusals(v1::REASON_TIMED_OUT), 1u);
}

TEST_F(IdentityTest, NonceIsWaitedForInVain_WithoutMitigation) {
  StartWithout(&daemon::Mitigations::handshake_deadline, Nonce());
  std::string nonce;
  RawPeer peer = Challenged(nonce);
  EXPECT_FALSE(peer.SeesEnd(std::chrono::milliseconds(800)));
  EXPECT_TRUE(peer.Call(Identify(nonce)).frame.has_hello());
}

// A process that connects, acquires, forks, and exits: the fork lives on and
// holds the socket. Steered through two pipes, which become fds 0 and 1.
class ProcessEndTest : public IdentityTest {
 protected:
  void SetUp() override {
    ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    ASSERT_EQ(pipe2(exit_, O_CLOEXEC), 0);
    ASSERT_EQ(pipe2(hold_, O_CLOEXEC), 0);
  }
  void TearDown() override {
    for (const int fd : {exit_[0], exit_[1], hold_[0], hold_[1]}) {
      if (fd >= 0) close(fd);
    }
    while (waitpid(-1, nullptr, 0) > 0) {
    }
    prctl(PR_SET_CHILD_SUBREAPER, 0);
    // Counts fds, so last.
    WireTest::TearDown();
  }

  void StartClient(bool acquire) {
    v1::ClientFrame hello = HelloFrame();
    hello.set_request(1);
    v1::ClientFrame frame = AcquireFrame();
    frame.set_request(2);
    const std::string first = hello.SerializeAsString();
    const std::string second = acquire ? frame.SerializeAsString() : "";
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    broker().address().copy(name.sun_path, sizeof(name.sun_path));
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) +
                                               broker().address().size());
    client_ = fork();
    if (client_ != 0) return;
    dup2(exit_[0], 0);
    dup2(hold_[0], 1);
    close_range(2, ~0u, 0);
    const int peer = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    connect(peer, reinterpret_cast<sockaddr*>(&name), length);
    send(peer, first.data(), first.size(), MSG_NOSIGNAL);
    if (!second.empty()) {
      send(peer, second.data(), second.size(), MSG_NOSIGNAL);
    }
    char byte;
    const int until = fork() == 0 ? 1 : 0;
    // Until the test closes the pipe's other end.
    while (read(until, &byte, 1) > 0) {
    }
    _exit(0);
  }
  void LetClientExit() {
    close(std::exchange(exit_[1], -1));
    ASSERT_EQ(waitpid(client_, nullptr, 0), client_);
  }

  pid_t client_ = -1;
  int exit_[2] = {-1, -1};
  int hold_[2] = {-1, -1};
};

TEST_F(ProcessEndTest, ClosesTheGateThoughAForkHoldsTheSocket) {
  Start();
  StartClient(/*acquire=*/true);
  broker().WaitUntil("it has its grant", [](TestBroker::Parts& parts) {
    return parts.ledger.size() == 1;
  });
  EXPECT_EQ(broker().OpenGates(), 1u);
  LetClientExit();
  ExpectNothingLeft();
  // The fork is still there.
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), 0);
  ExpectPoliteIsServed();
}

TEST_F(ProcessEndTest, EndsAConnectionThatNeverOwedItsNonce) {
  BrokerSetup setup = Nonce();
  setup.limits.handshake = std::chrono::seconds(60);
  Start(std::move(setup));
  StartClient(/*acquire=*/false);
  broker().WaitUntil("it is connected", [](TestBroker::Parts& parts) {
    return parts.acceptor.size() == 1;
  });
  LetClientExit();
  ExpectNothingLeft();
}

TEST_F(IdentityTest, EndOfTheSocketEndsTheSession) {
  Start();
  RawPeer peer = Open();
  ASSERT_TRUE(peer.Acquire().frame.has_acquire());
  EXPECT_EQ(broker().OpenGates(), 1u);
  // Half of it will do: what is not heard any more is over.
  ASSERT_EQ(shutdown(peer.fd(), SHUT_WR), 0);
  ExpectNothingLeft();
  EXPECT_TRUE(peer.SeesEnd());
}

}  // namespace
}  // namespace bpfgrant::broker_test
