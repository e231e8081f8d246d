// Frames that no correct client sends.

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/wire/limits.h"
#include "tests/wire/broker_fixture.h"

namespace bpfgrant::broker_test {
namespace {

class FramesTest : public WireTest {
 protected:
  // Sends `bytes` in a session that holds a grant; that one ends, gate and
  // all, and others go on.
  void ExpectEndsSession(const std::string& bytes) {
    RawPeer neighbour = Open();
    {
      RawPeer peer = Open();
      ASSERT_TRUE(peer.Acquire().frame.has_acquire());
      EXPECT_EQ(broker().OpenGates(), 1u);
      ASSERT_EQ(peer.Send(std::string_view(bytes)), 0);
      EXPECT_TRUE(peer.SeesEnd());
      EXPECT_EQ(broker().OpenGates(), 0u);
      // The peer's end is still open: its session is over all the same.
      EXPECT_EQ(broker().Look().sessions, 1u);
    }
    EXPECT_TRUE(neighbour.Acquire().frame.has_acquire());
    neighbour.Close();
    ExpectNothingLeft();
    ExpectPoliteIsServed();
  }

  static std::string Serialized(uint64_t request) {
    v1::ClientFrame frame = AcquireFrame();
    frame.set_request(request);
    return frame.SerializeAsString();
  }
};

TEST_F(FramesTest, TruncatedFrameEndsTheSession) {
  Start();
  const std::string whole = Serialized(10);
  ExpectEndsSession(whole.substr(0, whole.size() - 1));
}

TEST_F(FramesTest, GarbageEndsTheSession) {
  Start();
  ExpectEndsSession(std::string(100, '\xff'));
}

TEST_F(FramesTest, EmptyPacketEndsTheSession) {
  Start();
  ExpectEndsSession("");
}

TEST_F(FramesTest, OversizedFrameEndsTheSession) {
  Start();
  v1::ClientFrame frame = AcquireFrame();
  frame.set_request(10);
  frame.mutable_acquire()->set_interface(std::string(kMaxFrameBytes, 'a'));
  ExpectEndsSession(frame.SerializeAsString());
}

TEST_F(FramesTest, LargestFrameIsRead) {
  Start();
  RawPeer peer = Open();
  v1::ClientFrame frame;
  frame.set_request(10);
  frame.mutable_describe()->set_program(std::string(60'000, 'a'));
  // The field's own length takes three bytes at either size.
  frame.mutable_describe()->set_program(
      std::string(60'000 + kMaxFrameBytes - frame.ByteSizeLong(), 'a'));
  ASSERT_EQ(frame.ByteSizeLong(), kMaxFrameBytes);
  EXPECT_EQ(peer.Call(frame).reason(), v1::REASON_UNKNOWN_PROGRAM);
}

TEST_F(FramesTest, RequestZeroEndsTheSession) {
  Start();
  ExpectEndsSession(Serialized(0));
}

TEST_F(FramesTest, RequestThatCameAlreadyEndsTheSession) {
  Start();
  ExpectEndsSession(Serialized(2));
}

TEST_F(FramesTest, RequestThatGoesBackEndsTheSession) {
  Start();
  ExpectEndsSession(Serialized(1));
}

TEST_F(FramesTest, LargestRequestNumberIsTheLast) {
  Start();
  RawPeer peer = Open();
  v1::ClientFrame frame = AcquireFrame();
  frame.set_request(UINT64_MAX);
  EXPECT_EQ(peer.Call(frame).frame.request(), UINT64_MAX);
  ASSERT_EQ(peer.Send(std::string_view(Serialized(UINT64_MAX))), 0);
  EXPECT_TRUE(peer.SeesEnd());
}

// A newer client's call: refused, so that it can do without.
TEST_F(FramesTest, UnknownCallIsRefusedAndTheSessionGoesOn) {
  Start();
  RawPeer peer = Open();
  const Holdings before = broker().Look();
  v1::ClientFrame frame;
  frame.set_request(2);
  // Field 99, length-delimited, empty.
  ASSERT_EQ(peer.Send(std::string_view(frame.SerializeAsString() +
                                       std::string("\x9a\x06\x00", 3))),
            0);
  const RawPeer::Received reply = peer.Receive();
  EXPECT_EQ(reply.frame.request(), 2u);
  EXPECT_EQ(reply.reason(), v1::REASON_INVALID_ARGUMENT);
  EXPECT_EQ(broker().Look(), before);
  EXPECT_EQ(peer.Call([] {
                  v1::ClientFrame next = AcquireFrame();
                  next.set_request(3);
                  return next;
                }())
                .frame.request(),
            3u);
}

TEST_F(FramesTest, NamesThatMakeNoSenseAreRefused) {
  Start();
  RawPeer peer = Open();
  const Holdings before = broker().Look();
  std::vector<v1::ClientFrame> frames(6, AcquireFrame());
  frames[0].mutable_acquire()->clear_program();
  frames[1].mutable_acquire()->set_program(std::string(kMaxNameBytes + 1, 'a'));
  frames[2].mutable_acquire()->set_interface_hash(std::string(65, 'a'));
  frames[3].mutable_acquire()->add_handle(std::string(kMaxNameBytes + 1, 'a'));
  for (size_t i = 0; i <= kMaxFdsPerGrant; ++i) {
    frames[4].mutable_acquire()->add_handle("map0");
  }
  frames[5].mutable_acquire()->set_delivery(static_cast<v1::Delivery>(77));
  for (const v1::ClientFrame& frame : frames) {
    EXPECT_EQ(peer.Call(frame).reason(), v1::REASON_INVALID_ARGUMENT)
        << frame.ShortDebugString();
  }
  EXPECT_EQ(broker().Look(), before);
}

TEST_F(FramesTest, HandlesAndInterfacesThatAreNotOfferedAreRefused) {
  Start();
  RawPeer peer = Open();
  const Holdings before = broker().Look();
  v1::ClientFrame frame = AcquireFrame();
  frame.mutable_acquire()->add_handle("map1");
  EXPECT_EQ(peer.Call(frame).reason(), v1::REASON_UNKNOWN_HANDLE);
  frame.mutable_acquire()->set_handle(0, "map0");
  frame.mutable_acquire()->add_handle("map0");
  EXPECT_EQ(peer.Call(frame).reason(), v1::REASON_UNKNOWN_HANDLE);
  frame = AcquireFrame();
  frame.mutable_acquire()->set_interface("sampler/2");
  EXPECT_EQ(peer.Call(frame).reason(), v1::REASON_INTERFACE_MISMATCH);
  frame = AcquireFrame();
  frame.mutable_acquire()->set_interface_hash(std::string(64, 'b'));
  EXPECT_EQ(peer.Call(frame).reason(), v1::REASON_INTERFACE_MISMATCH);
  EXPECT_EQ(peer.Acquire("absent").reason(), v1::REASON_DENIED_BY_DEFAULT);
  EXPECT_EQ(broker().Look(), before);
}

}  // namespace
}  // namespace bpfgrant::broker_test
