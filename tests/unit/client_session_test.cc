// A session's begin and end, against a daemon that says what each test has it
// say.

#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <string>

#include "absl/status/status.h"
#include "client/bpfgrant/connection.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"
#include "tests/unit/fake_daemon.h"

namespace bpfgrant {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST_F(ClientConnectionTest, SaysHelloAndWhoItIs) {
  daemon_->Run([&] {
    const auto hello = daemon_->Next();
    EXPECT_EQ(hello.frame.hello().version(), v1::PROTOCOL_VERSION_1);
    EXPECT_LE(hello.frame.hello().client().size(), kMaxClientNameBytes);
    EXPECT_THAT(hello.fds, IsEmpty());
    EXPECT_EQ(hello.credentials, (Credentials{getpid(), geteuid(), getegid()}));
    daemon_->AnswerHello(hello.frame.request());
  });
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(connection_->session().session(), 7u);
  EXPECT_EQ(connection_->session().uid(), 1234u);
  EXPECT_THAT(connection_->session().token(), SizeIs(kSessionTokenBytes));
}

TEST_F(ClientConnectionTest, AnswersAChallenge) {
  const std::string nonce(kNonceBytes, 'n');
  daemon_->Run([&] {
    const uint64_t hello = daemon_->Next().frame.request();
    v1::ServerFrame challenge;
    challenge.mutable_challenge()->set_nonce(nonce);
    daemon_->Send(challenge);
    const auto identify = daemon_->Next();
    EXPECT_EQ(identify.frame.identify().nonce(), nonce);
    EXPECT_EQ(identify.credentials,
              (Credentials{getpid(), geteuid(), getegid()}));
    daemon_->AnswerHello(hello);
  });
  EXPECT_TRUE(Open().ok());
}

TEST_F(ClientConnectionTest, ReportsARefusedHello) {
  daemon_->Run([&] {
    daemon_->Refuse(daemon_->Next().frame.request(),
                    v1::REASON_PROTOCOL_VERSION, "too old");
  });
  const absl::Status opened = Open();
  EXPECT_EQ(ReasonOf(opened), v1::REASON_PROTOCOL_VERSION);
  EXPECT_THAT(std::string(opened.message()), HasSubstr("too old"));
}

TEST_F(ClientConnectionTest, ReportsARefusalOfTheChallenge) {
  daemon_->Run([&] {
    daemon_->Next();
    v1::ServerFrame challenge;
    challenge.mutable_challenge()->set_nonce(std::string(kNonceBytes, 'n'));
    daemon_->Send(challenge);
    daemon_->Refuse(daemon_->Next().frame.request(), v1::REASON_PEER_CHANGED,
                    "somebody else");
  });
  EXPECT_EQ(ReasonOf(Open()), v1::REASON_PEER_CHANGED);
}

TEST_F(ClientConnectionTest, ReportsBeingTurnedAway) {
  daemon_->Run([&] {
    daemon_->Next();
    daemon_->Refuse(0, v1::REASON_TOO_MANY_SESSIONS, "full");
    daemon_->Close();
  });
  EXPECT_EQ(ReasonOf(Open()), v1::REASON_TOO_MANY_SESSIONS);
}

TEST_F(ClientConnectionTest, ADaemonThatDoesNotAnswerTimesOut) {
  EXPECT_TRUE(absl::IsDeadlineExceeded(Open(milliseconds(50))));
}

TEST_F(ClientConnectionTest, ADaemonThatCloses) {
  daemon_->Run([&] {
    daemon_->Next();
    daemon_->Close();
  });
  EXPECT_TRUE(absl::IsUnavailable(Open()));
}

TEST_F(ClientConnectionTest, AFrameThatDoesNotParseEndsIt) {
  OpenSession();
  daemon_->Run([&] {
    daemon_->Next();
    daemon_->SendBytes("\xff\xff\xff");
  });
  EXPECT_FALSE(connection_->Status().ok());
  EXPECT_TRUE(absl::IsUnavailable(connection_->Status().status()));
}

TEST(ClientConnectTest, SaysWhyItCannotConnect) {
  const std::string nowhere = "/nonexistent/broker.sock";
  const auto missing = Connection::Connect({.path = nowhere});
  EXPECT_TRUE(absl::IsUnavailable(missing.status()));
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr(nowhere));
  EXPECT_TRUE(absl::IsInvalidArgument(
      Connection::Connect({.path = std::string(200, 'x')}).status()));
}

}  // namespace
}  // namespace bpfgrant
