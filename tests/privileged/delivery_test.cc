// How a program reaches its client: by its fd, or attached by the daemon.

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/skip.h"
#include "tests/privileged/client_fixture.h"

namespace bpfgrant::test {
namespace {

using ::testing::Contains;
using ::testing::IsEmpty;
using ::testing::Key;
using ::testing::Not;

constexpr char kUntrusted[] = R"(
rule {
  name: "untrusted"
  effect: ALLOW
  everyone: true
  program: "*"
  quota { grants: 64 }
}
)";

using DeliveryTest = ClientTest;

TEST_F(DeliveryTest, IsWhatWasAskedFor) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  Connect(client);
  client.Do("udp");
  EXPECT_EQ(client.Acquire("packet_sampler program").delivery, "program");
  EXPECT_EQ(client.Acquire("packet_sampler any").delivery, "program");
  EXPECT_EQ(client.Acquire("packet_sampler any socket=0").delivery, "program");
  // That one was left alone.
  EXPECT_EQ(client.Ask("traffic 0 10 2"), "ok 10 0");
  EXPECT_EQ(client.Acquire("packet_sampler attach socket=0").delivery,
            "attach");
  EXPECT_EQ(client.Ask("traffic 0 10 3"), "ok 10 10");
  EXPECT_EQ(client.Ask("acquire packet_sampler attach"),
            "refused socket-needed");
  EXPECT_EQ(client.Ask("acquire packet_sampler program socket=0"),
            "refused unexpected-fds");
  EXPECT_EQ(Status().grants(), 4u);
}

// Where a program's fd is dangerous, whom no rule trusts gets an attachment.
TEST_F(DeliveryTest, ToTheUntrustedDependsOnTheKernel) {
  DaemonOptions options;
  options.policy = kUntrusted;
  ASSERT_NO_FATAL_FAILURE(Start(options));
  Nobody client;
  Connect(client);
  client.Do("udp");
  const bool dangerous = Status().kernel().preemptible();
  EXPECT_EQ(client.Acquire("packet_sampler any socket=0").delivery,
            dangerous ? "attach" : "program");
  const std::string answer = client.Ask("acquire packet_sampler program");
  EXPECT_EQ(answer == "refused delivery-dangerous", dangerous) << answer;
}

TEST_F(DeliveryTest, AttachesToSocketsOfEveryKind) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  Connect(client);
  for (const char* kind : {"tcp", "udp", "unix-datagram", "unix-stream"}) {
    const std::string number = client.Word(absl::StrCat("open ", kind));
    const Acquired acquired =
        client.Acquire(absl::StrCat("packet_sampler attach socket=", number));
    EXPECT_EQ(acquired.delivery, "attach") << kind;
    EXPECT_THAT(acquired.ids, Not(Contains(Key("program"))));
    EXPECT_EQ(client.Ask("detach " + number), "error EPERM") << kind;
  }
}

TEST_F(DeliveryTest, AttachesToNothingElse) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const Resting before = Rest();
  {
    Nobody client;
    Connect(client);
    for (const char* kind : {"pipe", "file", "path-only"}) {
      const std::string number = client.Word(absl::StrCat("open ", kind));
      EXPECT_EQ(client.Ask("acquire packet_sampler attach socket=" + number),
                "refused socket-unsuitable")
          << kind;
    }
    // A socket without SO_REUSEPORT is in no group.
    const std::string alone = client.Word("udp");
    EXPECT_EQ(client.Ask("acquire reuseport_steer attach socket=" + alone),
              "refused socket-unsuitable");
    EXPECT_EQ(Status().grants(), 0u);
  }
  ExpectRestsAs(before);
}

TEST_F(DeliveryTest, ALockedSocketStaysAsItIs) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  Connect(client);
  client.Do("udp");
  client.Do("lock 0");
  EXPECT_EQ(client.Ask("acquire packet_sampler attach socket=0"),
            "refused attach-failed");
  EXPECT_EQ(Status().grants(), 0u);
}

TEST_F(DeliveryTest, TwoSocketsAreOneTooMany) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const Resting before = Rest();
  {
    Nobody client;
    client.Do("udp");
    client.Do("udp");
    client.Do("raw-connect " + daemon().broker_socket());
    client.Do("raw-hello");
    client.Do("raw-receive");
    client.Do("raw-acquire packet_sampler 0 1");
    EXPECT_EQ(client.Ask("raw-receive"), "refused unexpected-fds");
    EXPECT_EQ(Status().grants(), 0u);
  }
  ExpectRestsAs(before);
}

TEST_F(DeliveryTest, AnAttachmentIsLocked) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  Connect(client);
  client.Do("udp");
  client.Acquire("packet_sampler attach socket=0");
  client.Acquire("packet_sampler program");
  EXPECT_EQ(client.Ask("detach 0"), "error EPERM");
  EXPECT_EQ(client.Ask("attach 1 0"), "error EPERM");
  EXPECT_EQ(client.Ask("unlock 0"), "error EPERM");
  EXPECT_EQ(client.Ask("traffic 0 10 0"), "ok 10 10");
}

TEST_F(DeliveryTest, AnAttachmentCanBeTakenOffWithoutTheLock) {
  ASSERT_NO_FATAL_FAILURE(StartWithout({"lock_filter"}));
  Nobody client;
  Connect(client);
  client.Do("udp");
  client.Acquire("packet_sampler attach socket=0");
  client.Acquire("packet_sampler program");
  EXPECT_EQ(client.Ask("attach 1 0"), "ok");
  EXPECT_EQ(client.Ask("traffic 0 10 0"), "ok 10 0");
  EXPECT_EQ(client.Ask("detach 0"), "ok");
}

TEST_F(DeliveryTest, AnAttachmentIsRevokedByItsGate) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  Connect(client);
  client.Do("udp");
  const Acquired acquired = client.Acquire("packet_sampler attach socket=0");
  EXPECT_EQ(client.Ask("traffic 0 10 0"), "ok 10 10");
  EXPECT_EQ(RevokeGrant(acquired.grant), 1u);
  EXPECT_EQ(client.Ask("traffic 0 10 0"), "ok 10 0");
  EXPECT_EQ(client.Ask("detach 0"), "error EPERM");
}

TEST_F(DeliveryTest, AReuseportProgramIsAttachedToItsGroup) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  Connect(client);
  client.Do("udp group");
  const Acquired acquired = client.Acquire("reuseport_steer attach socket=0");
  EXPECT_EQ(acquired.delivery, "attach");
  EXPECT_EQ(client.Ask("map 0 sockets update 0"), "ok");
  EXPECT_EQ(client.Ask("traffic 0 10"), "ok 10 0");
  EXPECT_EQ(RevokeGrant(acquired.grant), 1u);
  EXPECT_EQ(client.Ask("traffic 0 10"), "ok 10 0");
}

// How long a grace period takes while a client runs its program at will, in
// parts of that run: near 1, it was held up all the while.
double GracePeriodHeldUp(Nobody& client) {
  using Clock = std::chrono::steady_clock;
  using Milliseconds = std::chrono::duration<double, std::milli>;
  client.Acquire("packet_sampler program");
  BeginLongRun(client, std::chrono::seconds(3));
  const auto before = Clock::now();
  EXPECT_EQ(syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0), 0);
  const double waited = Milliseconds(Clock::now() - before).count();
  const std::string answer = client.Answer(std::chrono::minutes(1));
  double run = 0;
  EXPECT_EQ(sscanf(answer.c_str(), "ok %lf", &run), 1) << answer;
  return waited / std::max(run, 1.0);
}

// Not what the files say that were read for it, but what the kernel does.
TEST_F(DeliveryTest, TheKernelIsWhatStatusSays) {
  BPFGRANT_REQUIRE_KERNEL(sysconf(_SC_NPROCESSORS_ONLN) > 1, "second CPU");
  ASSERT_NO_FATAL_FAILURE(Start());
  const v1::KernelFacts kernel = Status().kernel();
  EXPECT_THAT(kernel.release(), Not(IsEmpty()));
  EXPECT_THAT(kernel.preemption(), Not(IsEmpty()));
  EXPECT_THAT(kernel.preemption_evidence(), Not(IsEmpty()));
  const auto described = administrator().Describe("packet_sampler");
  ASSERT_TRUE(described.ok()) << described.status();
  EXPECT_EQ(described->detail().fd_danger().empty(), !kernel.preemptible());
  Nobody client;
  Connect(client);
  const double held_up = GracePeriodHeldUp(client);
  EXPECT_EQ(held_up > 0.5, kernel.preemptible())
      << "preemption is '" << kernel.preemption() << "' by "
      << kernel.preemption_evidence()
      << "; the grace period took that part of the run: " << held_up;
}

}  // namespace
}  // namespace bpfgrant::test
