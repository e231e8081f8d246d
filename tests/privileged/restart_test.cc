// A daemon that ends, however it ends, and the one that comes after it, with
// what the service manager kept: sessions and grants go on.

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

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

  // The client has a packet_sampler, attached to its socket 0.
  Acquired BeginSampling(Nobody& client) {
    Connect(client);
    client.Do("udp");
    Acquired acquired = client.Acquire("packet_sampler program");
    client.Do("attach 0 0");
    return acquired;
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
  const Acquired acquired = BeginSampling(client);
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
  BeginSampling(client);
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
  BeginSampling(client);
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

// What a tracing program serves goes on, and so does what it counts.
TEST_F(RestartTest, TracingGoesOn) {
  DaemonOptions options;
  options.store = true;
  options.programs = {"io_latency"};
  ASSERT_NO_FATAL_FAILURE(ClientTest::Start(options));
  Nobody client, other;
  Connect(client);
  Connect(other);
  const Acquired acquired = client.Acquire("io_latency any");
  client.Do("nops 30");
  ASSERT_NO_FATAL_FAILURE(
      Restart(Process::kLoader, SIGKILL, [&] { client.Do("nops 7"); }));
  client.Do("nops 3");
  EXPECT_EQ(client.Number("latencies 0 0", 1), 40u);
  // Another one begins, and the first one ends, each by itself.
  other.Acquire("io_latency any");
  other.Do("nops 5");
  EXPECT_EQ(RevokeGrant(acquired.grant), 1u);
  client.Do("nops 100");
  other.Do("nops 6");
  EXPECT_EQ(client.Number("latencies 0 0", 1), 40u);
  EXPECT_EQ(other.Number("latencies 0 0", 1), 11u);
}

// --- What goes over the wire, without the library ----------------------------

// Of v1::ServerFrame.
const std::string kAcquired = "ok 4 4";
const std::string kResumed = "ok 22 0";
const std::string kResumeReply = "ok 23 0";

class RawRestartTest : public RestartTest {
 protected:
  // Asks twice and reads nothing: one grant is on its way, and one waits in the
  // daemon for that to be read (requests `first_` and the next). Then the
  // daemon is killed.
  void BeKilledWithOneUnsent(Nobody& client) {
    ASSERT_NO_FATAL_FAILURE(Start());
    client.Do("raw-connect " + daemon().broker_socket());
    client.Do("raw-hello");
    client.Do("raw-receive");
    client.Do("raw-acquire packet_sampler");
    first_ = client.Number("raw-number");
    client.Do("raw-acquire packet_sampler");
    ASSERT_TRUE(WaitUntil([&] { return Live().size() == 2; }, kPatience));
    ASSERT_NO_FATAL_FAILURE(Restart());
    // What was sent has arrived, wherever the daemon has gone.
    EXPECT_EQ(client.Ask("raw-receive"), kAcquired);
    EXPECT_EQ(client.Ask("raw-receive"), kResumed);
  }
  // Those that are granted and have not ended.
  std::vector<uint64_t> Live() {
    std::vector<uint64_t> ids;
    const auto grants = administrator().Grants();
    EXPECT_TRUE(grants.ok()) << grants.status();
    for (const v1::GrantInfo& grant : grants->grant()) {
      if (grant.claimed() && grant.ended() == v1::REASON_UNSPECIFIED) {
        ids.push_back(grant.grant());
      }
    }
    return ids;
  }
  uint64_t first_ = 0;
};

TEST_F(RawRestartTest, WhatWasGrantedAndNotSentIsSentOnce) {
  Nobody client;
  ASSERT_NO_FATAL_FAILURE(BeKilledWithOneUnsent(client));
  const std::vector<uint64_t> before = Live();
  EXPECT_EQ(before.size(), 2u);
  client.Do(absl::StrCat("raw-resume 1 ", first_ + 1));
  EXPECT_EQ(client.Ask("raw-receive"), kResumeReply);
  client.Do(absl::StrCat("raw-again ", first_ + 1, " packet_sampler"));
  EXPECT_EQ(client.Ask("raw-receive"), kAcquired);
  EXPECT_EQ(Live(), before);
  // A third time is no request of before any more.
  client.Do(absl::StrCat("raw-again ", first_ + 1, " packet_sampler"));
  EXPECT_EQ(client.Ask("raw-receive"), "closed");
}

TEST_F(RawRestartTest, WhatNobodyWaitsForEnds) {
  Nobody client;
  ASSERT_NO_FATAL_FAILURE(BeKilledWithOneUnsent(client));
  client.Do("raw-resume 1");
  EXPECT_EQ(client.Ask("raw-receive"), kResumeReply);
  EXPECT_EQ(Live().size(), 1u);
}

// Its answer arrived, and the daemon was killed before it knew.
TEST_F(RawRestartTest, WhatIsHeldGoesOn) {
  Nobody client;
  ASSERT_NO_FATAL_FAILURE(BeKilledWithOneUnsent(client));
  const std::vector<uint64_t> before = Live();
  ASSERT_EQ(before.size(), 2u);
  client.Do(absl::StrCat("raw-resume 1 grant=", before[1]));
  EXPECT_EQ(client.Ask("raw-receive"), kResumeReply);
  EXPECT_EQ(Live(), before);
  // And another's is not claimed by its number.
  ASSERT_NO_FATAL_FAILURE(Restart());
  EXPECT_EQ(client.Ask("raw-receive"), kResumed);
  client.Do("raw-resume 2 grant=1000");
  EXPECT_EQ(client.Ask("raw-receive"), kResumeReply);
  EXPECT_EQ(Live(), before);
}

// One that was answered is not granted a second time.
TEST_F(RawRestartTest, WhatWasAnsweredIsRefused) {
  Nobody client;
  ASSERT_NO_FATAL_FAILURE(BeKilledWithOneUnsent(client));
  client.Do(absl::StrCat("raw-resume 1 ", first_, " ", first_ + 1));
  EXPECT_EQ(client.Ask("raw-receive"), kResumeReply);
  client.Do(absl::StrCat("raw-again ", first_, " packet_sampler"));
  EXPECT_EQ(client.Ask("raw-receive"), "refused out-of-order");
  EXPECT_EQ(Live().size(), 2u);
}

// Until it has said that it knows, nothing it says counts.
TEST_F(RawRestartTest, NothingCountsBeforeTheResume) {
  Nobody client;
  ASSERT_NO_FATAL_FAILURE(BeKilledWithOneUnsent(client));
  client.Do("raw-acquire packet_sampler");
  client.Do("raw-resume 0");
  client.Do("raw-acquire packet_sampler");
  client.Do(absl::StrCat("raw-resume 1 ", first_ + 1));
  EXPECT_EQ(client.Ask("raw-receive"), kResumeReply);
  EXPECT_EQ(Live().size(), 2u);
  client.Do("raw-resume 1");
  EXPECT_EQ(client.Ask("raw-receive"), "refused out-of-order");
}

TEST_F(RawRestartTest, AResumeThatNoClientSends) {
  // Of a restart that has not been, of numbers that have not been, of its own.
  for (const uint64_t pending : {0, 99, 2}) {
    Nobody client;
    ASSERT_NO_FATAL_FAILURE(BeKilledWithOneUnsent(client));
    client.Do(pending == 0 ? "raw-resume 2"
                           : absl::StrCat("raw-resume 1 ", first_ + pending));
    EXPECT_EQ(client.Ask("raw-receive"), "closed") << pending;
    EXPECT_TRUE(WaitUntil([&] { return Live().empty(); }, kPatience));
    EXPECT_TRUE(daemon().Stop().ok());
  }
}

TEST_F(RawRestartTest, AResumeOfWhatWasNotRestarted) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  client.Do("raw-connect " + daemon().broker_socket());
  client.Do("raw-hello");
  client.Do("raw-receive");
  client.Do("raw-resume 0");
  EXPECT_EQ(client.Ask("raw-receive"), "refused out-of-order");
}

// Another process with the connection is as little the client as before.
TEST_F(RawRestartTest, AForkIsStillAnother) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  Connect(client);
  client.Acquire("packet_sampler program");
  client.Do("fork");
  ASSERT_NO_FATAL_FAILURE(Restart());
  client.Do("child raw-take-over");
  client.Do("child raw-resume 1");
  EXPECT_TRUE(WaitUntil([&] { return Live().empty(); }, kPatience));
}

// --- What the service manager does not do ------------------------------------

// The sockets of sessions that the store lost are gone: their grants end.
TEST_F(RestartTest, WhatTheStoreLostEnds) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  BeginSampling(client);
  ASSERT_NO_FATAL_FAILURE(Restart(Process::kBroker, SIGKILL,
                                  [&] { daemon().store().Drop("session."); }));
  EXPECT_EQ(client.Ask("traffic 0 10 0"), "ok 10 0");
  EXPECT_EQ(client.Ask("ended 0"), "ok session-ended");
}

// Nor is anything of another daemon's taken for this one's.
TEST_F(RestartTest, WithoutTheLedgerEverythingEnds) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  BeginSampling(client);
  ASSERT_NO_FATAL_FAILURE(Restart(Process::kBroker, SIGKILL,
                                  [&] { daemon().store().Drop("ledger"); }));
  EXPECT_EQ(client.Ask("traffic 0 10 0"), "ok 10 0");
  EXPECT_EQ(client.Ask("ended 0"), "ok session-ended");
  Nobody later;
  Connect(later);
  later.Acquire("packet_sampler program");
}

// What another version of the daemon, or nobody, has put there.
TEST_F(RestartTest, WhatNobodyKnowsIsLetGoOf) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  BeginSampling(client);
  daemon().store().Put("something", UniqueFd(open("/dev/null", O_RDONLY)));
  UniqueFd listening(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un anywhere{};
  anywhere.sun_family = AF_UNIX;
  ASSERT_EQ(bind(listening.get(), reinterpret_cast<sockaddr*>(&anywhere),
                 sizeof(anywhere.sun_family)),
            0);
  ASSERT_EQ(listen(listening.get(), 1), 0);
  daemon().store().Put("something.else", std::move(listening));
  ASSERT_NO_FATAL_FAILURE(Restart());
  EXPECT_EQ(client.Ask("traffic 0 10 0"), "ok 10 10");
  EXPECT_EQ(client.Ask("ended 0"), "ok live");
  EXPECT_TRUE(WaitUntil(
      [&] { return daemon().store().Count("something") == 0; }, kPatience));
}

// One that reads nothing for a while delays nobody.
TEST_F(RestartTest, AManagerThatHangsDelaysNobody) {
  ASSERT_NO_FATAL_FAILURE(Start());
  daemon().store().Pause(true);
  for (int i = 0; i < 40; ++i) {
    Nobody client;
    Connect(client);
    client.Acquire("packet_sampler program");
  }
  daemon().store().Pause(false);
  WaitUntilIdle();
  EXPECT_TRUE(WaitUntil([&] { return daemon().store().Count("session.") == 1; },
                        kPatience));
}

}  // namespace
}  // namespace bpfgrant::test
