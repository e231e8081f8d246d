// The service over gRPC: for unprivileged clients of generated stubs alone, and
// for root.

#include "client/bpfgrant/grpc.h"

#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/refusal/refusal.h"
#include "tests/harness/kernel_features.h"
#include "tests/harness/process_tree.h"
#include "tests/privileged/client_fixture.h"

namespace bpfgrant::test {
namespace {

using ::testing::HasSubstr;

constexpr char kRuleForSampler[] = R"(
rule {
  name: "sampler"
  effect: ALLOW
  user: "65534"
  program: "packet_sampler"
  quota { grants: 16 }
  trusted: true
}
rule {
  name: "root"
  effect: ALLOW
  user: "0"
  program: "*"
  quota { grants: 16 }
  trusted: true
}
)";

class GrpcTest : public ClientTest {
 protected:
  void StartWithRule() {
    DaemonOptions options;
    options.policy = kRuleForSampler;
    Start(options);
  }
  // What the unprivileged client printed.
  std::string Run(const std::string& verb) {
    const Outcome outcome = RunUnprivileged(
        STUBS_PATH, {verb, daemon().runtime_directory()}, Nobody::Options());
    EXPECT_TRUE(outcome.ok()) << outcome.Describe();
    return outcome.output;
  }
};

TEST_F(GrpcTest, AClientOfStubsAloneUsesAProgram) {
  ASSERT_NO_FATAL_FAILURE(StartWithRule());
  const Resting before = Rest();
  EXPECT_EQ(Run("use"),
            "acquire 0 none\n"
            "claimable 1\n"
            "fds 4 of 4\n"
            "seen 3\n"
            "again REASON_ALREADY_CLAIMED\n"
            "release 0 none\n");
  ExpectRestsAs(before);
}

// The codes are gRPC's; 9 is FAILED_PRECONDITION, 16 UNAUTHENTICATED.
TEST_F(GrpcTest, ATokenNamesOneOpenSession) {
  ASSERT_NO_FATAL_FAILURE(StartWithRule());
  const std::string refused = "status 16 REASON_NO_SESSION\n";
  EXPECT_EQ(Run("tokens"), refused + refused + refused + refused + refused +
                               "status 0 none\n"
                               "closed 16 REASON_NO_SESSION\n");
}

TEST_F(GrpcTest, HealthAndReflectionNeedNoToken) {
  ASSERT_NO_FATAL_FAILURE(StartWithRule());
  EXPECT_EQ(Run("without-token"), "health 1\nreflection 1\n");
}

TEST_F(GrpcTest, FdsDoNotTravelHere) {
  ASSERT_NO_FATAL_FAILURE(StartWithRule());
  const Resting before = Rest();
  EXPECT_THAT(Run("claim"), HasSubstr("REASON_NEEDS_BROKER_SOCKET"));
  // What was acquired and never claimed went with the session.
  ExpectRestsAs(before);
}

TEST_F(GrpcTest, FewGrantsMayWaitToBeClaimed) {
  ASSERT_NO_FATAL_FAILURE(StartWithRule());
  const Resting before = Rest();
  const std::string output = Run("unclaimed");
  EXPECT_EQ(output.substr(0, 4 * 15),
            "acquire 0 none\nacquire 0 none\nacquire 0 none\nacquire 0 none\n");
  EXPECT_THAT(output, HasSubstr("REASON_BUSY"));
  ExpectRestsAs(before);
}

TEST_F(GrpcTest, AWatchEndsWithItsSession) {
  ASSERT_NO_FATAL_FAILURE(StartWithRule());
  EXPECT_EQ(Run("watch"),
            "event TYPE_GRANT_BEGAN 1 REASON_UNSPECIFIED\n"
            "event TYPE_GRANT_ENDED 1 REASON_RELEASED\n"
            "end 10\n");
}

// What was acquired and not claimed outlives a restart, and the token with it;
// the call under way does not.
TEST_F(GrpcTest, ATokenOutlivesARestart) {
  DaemonOptions options;
  options.store = true;
  options.programs = kTwoPrograms;
  ASSERT_NO_FATAL_FAILURE(Start(options));
  auto connection = Connection::Connect({.path = daemon().broker_socket()});
  ASSERT_TRUE(connection.ok()) << connection.status();
  const auto stub = NewStub(daemon().control_socket());
  const auto acquire = [&] {
    grpc::ClientContext context;
    UseSession(context, *connection);
    context.set_wait_for_ready(true);
    v1::AcquireRequest request;
    request.set_program("packet_sampler");
    request.set_interface("packet_sampler/1");
    v1::AcquireReply reply;
    const grpc::Status status = stub->Acquire(&context, request, &reply);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return reply.grant();
  };
  const uint64_t before = acquire();
  grpc::ClientContext watching;
  UseSession(watching, *connection);
  const auto watch = stub->Watch(&watching, v1::WatchRequest());
  watch->WaitForInitialMetadata();
  const absl::Status restarted =
      daemon().Restart(Daemon::Process::kBroker, SIGKILL);
  ASSERT_TRUE(restarted.ok()) << restarted;
  EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);

  auto claimed = connection->Claim(before);
  ASSERT_TRUE(claimed.ok()) << claimed.status();
  EXPECT_EQ(claimed->id(), before);
  EXPECT_EQ(claimed->handles().size(), 4u);
  const uint64_t after = acquire();
  EXPECT_GT(after, before);
  EXPECT_EQ(Status().grants(), 2u);
}

// A call that is cancelled before the daemon gets to it is gone, with all that
// gRPC had of it.
TEST_F(GrpcTest, WatchesThatAreCancelledAtOnceHarmNobody) {
  ASSERT_NO_FATAL_FAILURE(StartWithRule());
  auto connection = Connection::Connect({.path = daemon().broker_socket()});
  ASSERT_TRUE(connection.ok());
  const auto stub = NewStub(daemon().control_socket());
  // Keeps the daemon's loop busy, so that calls wait for their turn.
  std::atomic<bool> stop = false;
  std::thread busy([this, &stop] {
    auto other = Connection::Connect({.path = daemon().broker_socket()});
    while (!stop && other.ok() && other->List().ok()) {
    }
  });
  for (int i = 0; i < Times(1000, 200); ++i) {
    grpc::ClientContext context;
    // With a session and without.
    if (i % 2 == 0) UseSession(context, *connection);
    const auto stream = stub->Watch(&context, v1::WatchRequest());
    // Sent by now, or not, or half way.
    if (i % 3 != 0) usleep(static_cast<useconds_t>(i % 100));
    context.TryCancel();
    stream->Finish();
  }
  stop = true;
  busy.join();
  EXPECT_TRUE(connection->Status().ok());
}

TEST_F(GrpcTest, OthersAreNoneOfAClientsBusiness) {
  ASSERT_NO_FATAL_FAILURE(StartWithRule());
  const auto of_root = administrator().Acquire(
      {.program = "packet_sampler", .interface = "packet_sampler/1"});
  ASSERT_TRUE(of_root.ok()) << of_root.status();
  const std::string output = Run("others");
  for (const char* line :
       {"grants 0 none\nsees 0\n", "REASON_NOT_ADMINISTRATOR\nreload",
        "REASON_NOT_ADMINISTRATOR\ndescribe", "REASON_UNKNOWN_PROGRAM\n",
        "explain 7 REASON_NOT_ADMINISTRATOR\n",
        "activity 7 REASON_NOT_ADMINISTRATOR\n",
        "metrics 0 none\nof programs 0\n"}) {
    EXPECT_THAT(output, HasSubstr(line));
  }
  Nobody client;
  Connect(client);
  client.Acquire("packet_sampler program");
  EXPECT_THAT(Run("others"), HasSubstr("sees 1\n"));
  EXPECT_EQ(client.Ask("grants"), "ok 1 0");
}

// Root's calls by stub, each against the same call on the broker socket.
class GrpcAdministratorTest : public GrpcTest {
 protected:
  void SetUp() override {
    GrpcTest::SetUp();
    ASSERT_NO_FATAL_FAILURE(StartWithRule());
    stub_ = NewStub(daemon().control_socket());
  }
  template <typename Request, typename Reply>
  Reply Call(grpc::Status (v1::Bpfgrant::Stub::*method)(grpc::ClientContext*,
                                                        const Request&, Reply*),
             const Request& request) {
    grpc::ClientContext context;
    UseSession(context, administrator());
    context.set_deadline(std::chrono::system_clock::now() + kPatience);
    Reply reply;
    const grpc::Status status = (*stub_.*method)(&context, request, &reply);
    last_ = ToStatus(context, status);
    return reply;
  }
  template <typename Message>
  static std::string Print(const absl::StatusOr<Message>& message) {
    return message.ok() ? message->DebugString() : message.status().ToString();
  }

  std::unique_ptr<v1::Bpfgrant::Stub> stub_;
  absl::Status last_;
};

TEST_F(GrpcAdministratorTest, AsksTheSameOnBothSockets) {
  using Stub = v1::Bpfgrant::Stub;
  Nobody client;
  Connect(client);
  client.Acquire("packet_sampler program");
  client.Acquire("packet_sampler program");
  // Until the pool is full again: what changes meanwhile differs from call to
  // call.
  ASSERT_TRUE(WaitUntil(
      [&] {
        const auto list = administrator().List();
        return list.ok() && list->program_size() == 2 &&
               list->program(0).pool_ready() == 4 &&
               list->program(1).pool_ready() == 4;
      },
      kPatience));
  EXPECT_EQ(Call(&Stub::List, v1::ListRequest()).DebugString(),
            Print(administrator().List()));
  v1::DescribeRequest describe;
  describe.set_program("packet_sampler");
  EXPECT_EQ(Call(&Stub::Describe, describe).DebugString(),
            Print(administrator().Describe("packet_sampler")));
  v1::ExplainRequest explain;
  explain.set_program("packet_sampler");
  explain.mutable_subject()->set_uid(kNobody);
  const v1::ExplainReply explained = Call(&Stub::Explain, explain);
  EXPECT_EQ(explained.DebugString(), Print(administrator().Explain(explain)));
  EXPECT_EQ(explained.in_use(), 2u);
  const v1::GrantsReply grants = Call(&Stub::Grants, v1::GrantsRequest());
  EXPECT_EQ(grants.DebugString(), Print(administrator().Grants()));
  EXPECT_EQ(grants.grant_size(), 2);
  const v1::MatrixReply matrix = Call(&Stub::Matrix, v1::MatrixRequest());
  EXPECT_EQ(matrix.DebugString(), Print(administrator().Matrix()));
  // Two users and everybody else, two programs.
  EXPECT_EQ(matrix.cell_size(), 6);
  EXPECT_EQ(client.Ask("acquire reuseport_steer program"),
            "refused denied-by-default");
  const v1::DenialsReply denials = Call(&Stub::Denials, v1::DenialsRequest());
  EXPECT_EQ(denials.DebugString(), Print(administrator().Denials()));
  EXPECT_EQ(denials.denial_size(), 1);
  EXPECT_EQ(Call(&Stub::Status, v1::StatusRequest()).DebugString(),
            Print(administrator().Status()));
  const v1::MetricsReply metrics = Call(&Stub::Metrics, v1::MetricsRequest());
  EXPECT_EQ(metrics.text(), administrator().Metrics().value_or("nothing"));
  EXPECT_THAT(metrics.text(), HasSubstr("program=\"packet_sampler\""));
  const v1::ActivityReply activity =
      Call(&Stub::Activity, v1::ActivityRequest());
  EXPECT_EQ(activity.program_size(), 2);
  EXPECT_EQ(activity.grant_size(), 2);
}

TEST_F(GrpcAdministratorTest, AReleaseWaitsUntilNothingIsLeft) {
  using Stub = v1::Bpfgrant::Stub;
  v1::ReleaseRequest release;
  {
    const auto grant = administrator().Acquire(
        {.program = "packet_sampler", .interface = "packet_sampler/1"});
    ASSERT_TRUE(grant.ok()) << grant.status();
    release.set_grant(grant->id());
    release.set_wait_ms(100);
    Call(&Stub::Release, release);
    EXPECT_EQ(ReasonOf(last_), v1::REASON_STILL_HELD) << last_;
  }
  release.set_wait_ms(20'000);
  Call(&Stub::Release, release);
  EXPECT_TRUE(last_.ok()) << last_;
  EXPECT_EQ(Status().held(), 0u);
}

TEST_F(GrpcAdministratorTest, RevokesAndReloads) {
  using Stub = v1::Bpfgrant::Stub;
  Nobody client;
  Connect(client);
  const Acquired acquired = client.Acquire("packet_sampler program");
  const SamplerProbe probe(acquired);
  v1::RevokeRequest revoke;
  revoke.set_grant(acquired.grant);
  const v1::RevokeReply revoked = Call(&Stub::Revoke, revoke);
  EXPECT_TRUE(last_.ok()) << last_;
  EXPECT_EQ(revoked.revoked(), 1u);
  EXPECT_FALSE(probe.Runs());
  Call(&Stub::Revoke, revoke);
  EXPECT_EQ(ReasonOf(last_), v1::REASON_UNKNOWN_GRANT);
  EXPECT_EQ(Call(&Stub::Reload, v1::ReloadRequest()).programs(), 2u);
  daemon().WritePolicy("rubbish");
  Call(&Stub::Reload, v1::ReloadRequest());
  EXPECT_EQ(ReasonOf(last_), v1::REASON_RELOAD_REJECTED);
  EXPECT_THAT(last_.ToString(), HasSubstr("test.policy:1:"));
}

}  // namespace
}  // namespace bpfgrant::test
