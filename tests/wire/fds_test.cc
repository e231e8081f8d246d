// fds and other control data beside frames, in every number and kind.

#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "proto/wire/limits.h"
#include "tests/wire/broker_fixture.h"
#include "tests/wire/fd_limit.h"

namespace bpfgrant::broker_test {
namespace {

class FdsTest : public WireTest {
 protected:
  // The broker's own fds too: they are this process's. Asking the loop makes
  // sure that it is done with the last frame.
  size_t Count() {
    broker().Settle();
    return CountOpenFds();
  }
};

std::vector<v1::ClientFrame> CallsWithoutFds() {
  std::vector<v1::ClientFrame> frames(9);
  frames[0].mutable_release()->set_grant(99);
  frames[1].mutable_list();
  frames[2].mutable_describe()->set_program("sampler");
  frames[3].mutable_explain()->set_program("sampler");
  frames[4].mutable_grants();
  frames[5].mutable_watch();
  frames[6].mutable_revoke()->set_all(true);
  frames[7].mutable_reload();
  frames[8].mutable_status();
  return frames;
}

TEST_F(FdsTest, OneBesideACallThatTakesNoneIsRefusedAndClosed) {
  Start();
  RawPeer peer = Open();
  const UniqueFd fd = Sendable();
  const size_t before = Count();
  const Holdings holdings = broker().Look();
  const int fds[] = {fd.get()};
  for (const v1::ClientFrame& frame : CallsWithoutFds()) {
    EXPECT_EQ(peer.Call(frame, fds).reason(), v1::REASON_UNEXPECTED_FDS)
        << frame.ShortDebugString();
  }
  EXPECT_EQ(peer.Call(AcquireFrame(), fds).reason(), v1::REASON_UNEXPECTED_FDS);
  v1::ClientFrame claim;
  claim.mutable_claim()->set_grant(99);
  EXPECT_EQ(peer.Call(claim, fds).reason(), v1::REASON_UNKNOWN_GRANT);
  EXPECT_EQ(peer.Call(HelloFrame(), fds).reason(), v1::REASON_OUT_OF_ORDER);
  EXPECT_EQ(peer.Call(v1::ClientFrame(), fds).reason(),
            v1::REASON_INVALID_ARGUMENT);
  EXPECT_EQ(Count(), before);
  EXPECT_EQ(broker().Look(), holdings);
}

TEST_F(FdsTest, OneBesideACallBeforeTheHelloIsClosed) {
  Start();
  const UniqueFd fd = Sendable();
  const int fds[] = {fd.get()};
  RawPeer peer = Connect();
  ASSERT_EQ(peer.Call(v1::ClientFrame()).reason(), v1::REASON_INVALID_ARGUMENT);
  const size_t before = Count();
  for (const v1::ClientFrame& frame : CallsWithoutFds()) {
    EXPECT_EQ(peer.Call(frame, fds).reason(), v1::REASON_NO_SESSION);
  }
  EXPECT_EQ(peer.Call(AcquireFrame(), fds).reason(), v1::REASON_NO_SESSION);
  EXPECT_EQ(Count(), before);
}

TEST_F(FdsTest, SocketThatIsNotNeededIsClosed) {
  Start();
  RawPeer peer = Open();
  const UniqueFd fd = Sendable();
  const size_t before = Count();
  v1::ClientFrame frame = AcquireFrame();
  frame.mutable_acquire()->set_delivery(v1::DELIVERY_ANY);
  const int fds[] = {fd.get()};
  RawPeer::Received reply = peer.Call(frame, fds);
  EXPECT_EQ(reply.frame.acquire().delivery(), v1::DELIVERY_PROGRAM);
  ASSERT_EQ(reply.fds.size(), 2u);
  reply.fds.clear();
  EXPECT_EQ(Count(), before);
}

// More than any call takes: no correct client does that.
TEST_F(FdsTest, MoreThanAnyCallTakesEndTheSession) {
  Start();
  const UniqueFd fd = Sendable();
  std::vector<v1::ClientFrame> frames = CallsWithoutFds();
  frames.push_back(AcquireFrame());
  frames.push_back(HelloFrame());
  frames.emplace_back();
  for (const size_t count : {kMaxFdsFromClient + 1, size_t{17}, size_t{253}}) {
    const std::vector<int> fds(count, fd.get());
    for (const v1::ClientFrame& frame : frames) {
      const size_t before = Count();
      {
        RawPeer peer = Open();
        ASSERT_EQ(peer.Send(frame, fds), 0);
        EXPECT_TRUE(peer.SeesEnd());
      }
      ExpectNothingLeft();
      EXPECT_EQ(Count(), before);
    }
  }
  ExpectPoliteIsServed();
}

// What the kernel keeps from us, so that nobody has to wonder.
TEST_F(FdsTest, KernelRefusesToSend) {
  Start();
  RawPeer peer = Open(Self());
  const UniqueFd fd = Sendable();
  EXPECT_EQ(
      peer.SendWith("x", Control().Rights(std::vector<int>(254, fd.get()))),
      EINVAL);
  EXPECT_EQ(peer.SendWith("x", Control().Raw(SOL_SOCKET, 0x7f, "data")),
            EINVAL);
  const int closed[] = {-1};
  EXPECT_EQ(peer.SendWith("x", Control().Rights(closed)), EBADF);
  EXPECT_TRUE(peer.Acquire().frame.has_acquire());
}

TEST_F(FdsTest, RightsInTwoMessagesAreCountedTogether) {
  Start();
  const UniqueFd fd = Sendable();
  const std::vector<int> most(kMaxFdsFromClient, fd.get());
  const int one[] = {fd.get()};
  const size_t before = Count();
  {
    RawPeer peer = Open(Self());
    v1::ClientFrame frame = AcquireFrame();
    frame.set_request(2);
    ASSERT_EQ(peer.SendWith(frame.SerializeAsString(),
                            Control().Rights(most).Rights(one)),
              0);
    EXPECT_TRUE(peer.SeesEnd());
  }
  ExpectNothingLeft();
  EXPECT_EQ(Count(), before);
}

TEST_F(FdsTest, ControlDataOfOtherLevelsAndEmptyRightsAreNothing) {
  Start();
  RawPeer peer = Open(Self());
  v1::ClientFrame frame = AcquireFrame();
  frame.set_request(2);
  // The kernel passes over levels that are not its own.
  ASSERT_EQ(peer.SendWith(frame.SerializeAsString(),
                          Control().Raw(IPPROTO_IP, 1, "data").Rights({})),
            0);
  EXPECT_TRUE(peer.Receive().frame.has_acquire());
}

TEST_F(FdsTest, CredentialsAndRightsInAnyOrder) {
  BrokerSetup setup;
  Start(std::move(setup));
  RawPeer peer = Open(Self());
  const UniqueFd fd = Sendable();
  const int fds[] = {fd.get()};
  const Credentials self{getpid(), getuid(), getgid()};
  v1::ClientFrame frame = AcquireFrame();
  frame.mutable_acquire()->set_delivery(v1::DELIVERY_ATTACH);
  frame.set_request(2);
  ASSERT_EQ(peer.SendWith(frame.SerializeAsString(),
                          Control().From(self).Rights(fds)),
            0);
  EXPECT_TRUE(peer.Receive().frame.has_acquire());
  frame.set_request(3);
  ASSERT_EQ(peer.SendWith(frame.SerializeAsString(),
                          Control().Rights(fds).From(self)),
            0);
  EXPECT_TRUE(peer.Receive().frame.has_acquire());
  EXPECT_EQ(
      broker().Ask([](auto& parts) { return parts.scripted.attach_fds(); }),
      std::vector<size_t>({2, 2}));
}

// A receiver without room for them loses fds. It knows (MSG_CTRUNC), the daemon
// does not: the grant stands, and can be released.
TEST_F(FdsTest, ReceiverWithoutRoomLosesItsFds) {
  Start();
  RawPeer peer = Open();
  const size_t before = Count();
  ASSERT_EQ(peer.Send(AcquireFrame()), 0);
  const RawPeer::Received reply = peer.Receive(kPatience, 0);
  EXPECT_TRUE(reply.truncated);
  EXPECT_TRUE(reply.fds.empty());
  EXPECT_EQ(Count(), before);
  EXPECT_EQ(broker().Look().grants, 1u);
  v1::ClientFrame release;
  release.mutable_release()->set_grant(reply.frame.acquire().grant());
  EXPECT_TRUE(peer.Call(release).frame.has_release());
  EXPECT_EQ(broker().OpenGates(), 0u);
}

// The broker itself has no room for an fd that comes: that session ends, since
// it cannot be known what was lost, and no other does.
TEST_F(FdsTest, FdThatTheBrokerHasNoRoomForEndsItsSessionOnly) {
  Start();
  RawPeer neighbour = Open();
  RawPeer peer = Open();
  const UniqueFd fd = Sendable();
  const int fds[] = {fd.get()};
  {
    FdLimit no_more;
    ASSERT_EQ(peer.Send(AcquireFrame(), fds), 0);
    EXPECT_TRUE(peer.SeesEnd());
  }
  EXPECT_TRUE(neighbour.Acquire().frame.has_acquire());
}

}  // namespace
}  // namespace bpfgrant::broker_test
