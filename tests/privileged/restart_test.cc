// A daemon that ends, however it ends, and the one that comes after it, with
// what the service manager kept: sessions and grants go on.

#include <signal.h>

#include <ostream>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/harness/process_tree.h"
#include "tests/privileged/client_fixture.h"

namespace bpfgrant::test {
namespace {

using Process = Daemon::Process;

constexpr char kOneEach[] = R"(
rule {
  name: "one"
  effect: ALLOW
  everyone: true
  program: "*"
  quota { grants: 1 }
  trusted: true
}
)";

class RestartTest : public ClientTest {
 protected:
  void Start(DaemonOptions options = {}) {
    options.store = true;
    options.programs = kTwoPrograms;
    ClientTest::Start(options);
  }

  void Restart(
      Process process = Process::kBroker, int signal = SIGKILL,
      const std::function<void()>& meanwhile = [] {}) {
    const absl::Status status = daemon().Restart(process, signal, meanwhile);
    ASSERT_TRUE(status.ok()) << std::string(status.message());
  }
};

struct End {
  const char* name;
  Process process;
  int signal;
  friend void PrintTo(const End& end, std::ostream* out) { *out << end.name; }
};

class EndTest : public RestartTest,
                public ::testing::WithParamInterface<End> {};

TEST_P(EndTest, SessionsAndGrantsLiveOn) {
  DaemonOptions options;
  options.policy = kOneEach;
  ASSERT_NO_FATAL_FAILURE(Start(options));
  Nobody client;
  Connect(client);
  client.Do("udp");
  const Acquired acquired = client.Acquire("packet_sampler program");
  client.Do("attach 0 0");
  EXPECT_EQ(client.Ask("traffic 0 10 0"), "ok 10 10");

  // It goes on while nobody is there to be asked.
  std::string meanwhile;
  ASSERT_NO_FATAL_FAILURE(Restart(GetParam().process, GetParam().signal, [&] {
    meanwhile = client.Ask("traffic 0 10 0");
  }));
  EXPECT_EQ(meanwhile, "ok 10 10");
  EXPECT_EQ(client.Ask("ended 0"), "ok live");
  EXPECT_EQ(client.Ask("traffic 0 10 0"), "ok 10 10");

  const v1::StatusReply status = Status();
  EXPECT_EQ(status.restart(), "kept");
  EXPECT_EQ(status.resumed_grants(), 1u);
  EXPECT_EQ(status.resumed_sessions(), 2u);  // the administrator's, too
  const auto grants = administrator().Grants();
  ASSERT_TRUE(grants.ok()) << grants.status().ToString();
  ASSERT_EQ(grants->grant_size(), 1);
  EXPECT_EQ(grants->grant(0).grant(), acquired.grant);
  EXPECT_EQ(grants->grant(0).uid(), 65534u);

  // Its quota counts, in the same session.
  EXPECT_THAT(client.Ask("acquire packet_sampler program"),
              ::testing::HasSubstr("quota"));
  // And what was granted before can be taken back.
  EXPECT_EQ(RevokeGrant(acquired.grant), 1u);
  EXPECT_EQ(client.Ask("traffic 0 10 0"), "ok 10 0");
  EXPECT_EQ(client.Ask("ended 0"), "ok revoked");
}

INSTANTIATE_TEST_SUITE_P(
    However, EndTest,
    ::testing::Values(End{"BrokerKilled", Process::kBroker, SIGKILL},
                      End{"LoaderKilled", Process::kLoader, SIGKILL},
                      End{"AskedTo", Process::kBroker, SIGUSR1}),
    [](const auto& end) { return end.param.name; });

TEST_F(RestartTest, AgainAndAgain) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  Connect(client);
  client.Do("udp");
  client.Acquire("packet_sampler program");
  client.Do("attach 0 0");
  for (int i = 0; i < 3; ++i) {
    ASSERT_NO_FATAL_FAILURE(Restart());
    EXPECT_EQ(client.Ask("traffic 0 10 0"), "ok 10 10") << i;
  }
  EXPECT_EQ(client.Ask("ended 0"), "ok live");
  client.Do("release 0");
  EXPECT_EQ(client.Ask("traffic 0 10 0"), "ok 10 0");
}

TEST_F(RestartTest, WhatIsAskedMeanwhileIsAnswered) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  Connect(client);
  ASSERT_NO_FATAL_FAILURE(Restart(Process::kBroker, SIGKILL, [&] {
    client.Tell("acquire packet_sampler program");
    // It is in the socket's queue when the daemon comes.
    EXPECT_EQ(client.Listen(std::chrono::milliseconds(50)), "");
  }));
  EXPECT_THAT(client.Answer(kPatience), ::testing::StartsWith("ok 0 "));
  EXPECT_EQ(Status().grants(), 1u);
}

TEST_F(RestartTest, WhoDiesMeanwhileIsCleanedUp) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client, other;
  Connect(client);
  Connect(other);
  const Acquired gone = client.Acquire("packet_sampler program");
  other.Acquire("packet_sampler program");
  ASSERT_NO_FATAL_FAILURE(
      Restart(Process::kBroker, SIGKILL, [&] { client.KillAndReap(); }));
  EXPECT_EQ(Status().grants(), 1u);
  ExpectGone(gone.objects());
  EXPECT_EQ(other.Ask("ended 0"), "ok live");
}

// What has ended and is still held counts on.
TEST_F(RestartTest, WhatIsHeldStillCounts) {
  DaemonOptions options;
  options.policy = kOneEach;
  ASSERT_NO_FATAL_FAILURE(Start(options));
  Nobody client;
  Connect(client);
  const Acquired acquired = client.Acquire("packet_sampler program");
  EXPECT_EQ(RevokeGrant(acquired.grant), 1u);
  ASSERT_NO_FATAL_FAILURE(Restart());
  EXPECT_EQ(Status().held(), 1u);
  EXPECT_THAT(client.Ask("acquire packet_sampler program"),
              ::testing::HasSubstr("quota"));
  client.KillAndReap();
  EXPECT_TRUE(WaitUntil([&] { return Status().held() == 0; }, kPatience));
}

TEST_F(RestartTest, StoppedForGoodEverythingEnds) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  Connect(client);
  client.Do("udp");
  client.Acquire("packet_sampler program");
  client.Do("attach 0 0");
  const absl::Status stopped = daemon().Stop();
  EXPECT_TRUE(stopped.ok()) << stopped.ToString();
  EXPECT_EQ(client.Ask("traffic 0 10 0"), "ok 10 0");
  EXPECT_EQ(client.Ask("ended 0"), "ok daemon-stopped");
}

// The store has what lives, and lets go of what has ended.
TEST_F(RestartTest, NothingPilesUpInTheStore) {
  ASSERT_NO_FATAL_FAILURE(Start());
  WaitUntilIdle();
  FdKeeper& store = daemon().store();
  const size_t sessions = store.Count("session.");
  const size_t instances = store.Count("instance.");
  EXPECT_EQ(sessions, 1u);  // the administrator's
  EXPECT_GT(instances, 0u);
  {
    Nobody client;
    Connect(client);
    EXPECT_EQ(store.Count("session."), 2u);
    for (int i = 0; i < 5; ++i) {
      client.Acquire("packet_sampler program");
      client.Do(absl::StrCat("release ", i));
    }
  }
  WaitUntilIdle();
  EXPECT_TRUE(WaitUntil(
      [&] {
        return store.Count("session.") == sessions &&
               store.Count("instance.") == instances;
      },
      kPatience))
      << store.Count("session.") << " sessions, " << store.Count("instance.")
      << " fds of instances";
}

}  // namespace
}  // namespace bpfgrant::test
