// What a hostile client does with its loop, on its ring, so that the kernel or
// others come to harm.

#include <chrono>
#include <cstring>
#include <iostream>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/wire/ring.h"
#include "tests/loop/attach/attach_fixture.h"
#include "tests/privileged/client/raw_ring.h"

namespace bpfgrant::test {
namespace {

using ::testing::StartsWith;
using Clock = std::chrono::steady_clock;

class HazardTest : public AttachTest {
 protected:
  // Another client attaches and runs a loop meanwhile: this process, which is
  // another user's. How long that took, or nothing if it was not done in
  // `patience`.
  std::optional<std::chrono::milliseconds> Bystander(
      std::chrono::milliseconds patience) {
    const auto begin = Clock::now();
    auto connection = Connection::Connect(
        {.path = daemon().broker_socket(), .timeout = patience});
    auto ring = RawRing::Make(128, 256, kLoopSetupFlags);
    if (!connection.ok() || !ring.ok()) return std::nullopt;
    EXPECT_EQ((*ring)->RegisterMemory(), 0);
    Connection::AcquireOptions options;
    options.program = "puppet";
    options.interface = "puppet/1";
    options.delivery = v1::DELIVERY_RING;
    options.ring = (*ring)->fd();
    const auto grant = connection->Acquire(options);
    if (!grant.ok()) {
      std::cout << "bystander: " << grant.status() << std::endl;
      return std::nullopt;
    }
    (*ring)->memory()->mode = PUPPET_SUBMIT;
    (*ring)->memory()->count = 1;
    std::memset((*ring)->sqes(), 0, sizeof(io_uring_sqe));
    EXPECT_EQ((*ring)->Enable(), 0);
    EXPECT_EQ((*ring)->Enter(0, 0), 0);
    EXPECT_EQ((*ring)->memory()->done, 1u);
    return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() -
                                                                 begin);
  }
};

TEST_F(HazardTest, AThreadThatNeverHadARingIsStopped) {
  BPFGRANT_START();
  Nobody client;
  Connect(client);
  const std::string fd = MakeRing(client);
  ASSERT_EQ(client.Ask("job 0 0 1"), "ok");
  ASSERT_EQ(client.Ask("put 0 0 nop"), "ok");
  ASSERT_THAT(client.Ask("attach-ring puppet " + fd), StartsWith("ok"));
  EXPECT_EQ(client.Ask("enter-in-thread 0"), "ok 0");
  EXPECT_THAT(client.Ask("loop-status 0"),
              StartsWith(absl::StrCat("ok ", BPFGRANT_STOP_TASK, " ")));
}

TEST_F(HazardTest, AProcessThatGotTheRingByExecIsStopped) {
  BPFGRANT_START();
  Nobody client;
  Connect(client);
  const std::string fd = MakeRing(client);
  ASSERT_EQ(client.Ask("job 0 0 1"), "ok");
  ASSERT_THAT(client.Ask("attach-ring puppet " + fd), StartsWith("ok"));
  ASSERT_THAT(client.Ask("fork"), StartsWith("ok"));
  EXPECT_EQ(client.Ask("child execute-with-ring 0"), "ok 0");
  EXPECT_THAT(client.Ask("loop-status 0"),
              StartsWith(absl::StrCat("ok ", BPFGRANT_STOP_TASK, " ")));
}

// Their twin is in oops_test.cc, which leaves the kernel unfit for more.

TEST_F(HazardTest, ALoopThatSpinsLetsItsProcessComeBack) {
  BPFGRANT_START();
  Nobody client;
  MakeLoop(client, PUPPET_SPIN);
  EXPECT_THAT(client.Ask("enter 0"), StartsWith("ok 0"));
  EXPECT_THAT(client.Ask("loop-status 0"),
              StartsWith(absl::StrCat("ok ", BPFGRANT_STOP_BUDGET, " ")));
}

TEST_F(HazardTest, WithoutABudgetALoopSpinsForEver) {
  BPFGRANT_START("loop_step_budget");
  Nobody client;
  MakeLoop(client, PUPPET_SPIN);
  client.Tell("enter 0");
  EXPECT_EQ(client.Listen(std::chrono::seconds(3)), "");
  // Its gate still stops it.
  v1::RevokeRequest all;
  all.set_all(true);
  EXPECT_EQ(Revoke(all), 1u);
  EXPECT_THAT(client.Answer(kPatience), StartsWith("ok 0"));
}

TEST_F(HazardTest, ASpinningLoopCanBeKilled) {
  BPFGRANT_START("loop_step_budget");
  Nobody client;
  MakeLoop(client, PUPPET_SPIN);
  client.Tell("enter 0");
  EXPECT_EQ(client.Listen(std::chrono::milliseconds(500)), "");
  client.KillAndReap();
}

// Taking a spinning loop back must not hold up others: its gate is closed
// first, so that it lets go of its ring.
TEST_F(HazardTest, OthersAttachWhileASpinningLoopIsTakenBack) {
  BPFGRANT_START("loop_step_budget");
  Nobody client;
  MakeLoop(client, PUPPET_SPIN);
  client.Tell("enter 0");
  EXPECT_EQ(client.Listen(std::chrono::milliseconds(300)), "");
  v1::RevokeRequest all;
  all.set_all(true);
  EXPECT_EQ(Revoke(all), 1u);
  const auto took = Bystander(kPatience);
  ASSERT_TRUE(took.has_value());
  EXPECT_LT(*took, kLinkDeadline + std::chrono::milliseconds(1000));
  EXPECT_THAT(client.Answer(kPatience), StartsWith("ok 0"));
}

// The twin: with the gate left open, and nobody killed, whoever removes the
// link waits for a lock that the loop never gives back, and with it waits every
// other loop of the machine.
TEST_F(HazardTest, WithTheGateOpenOneSpinningLoopHoldsUpAllOthers) {
  BPFGRANT_START("loop_step_budget", "gate_closes", "loop_link_turns");
  LeaveIt();
  Nobody client;
  MakeLoop(client, PUPPET_SPIN);
  client.Tell("enter 0");
  EXPECT_EQ(client.Listen(std::chrono::milliseconds(300)), "");
  v1::RevokeRequest all;
  all.set_all(true);
  EXPECT_EQ(Revoke(all), 1u);
  EXPECT_FALSE(Bystander(std::chrono::milliseconds(3000)).has_value());
  client.KillAndReap();
}

// With the gate open, but with turns and deadlines: who holds the lock is
// killed, and the others go on. A forked child holds it here, which is not the
// process that connected.
TEST_F(HazardTest, WhoKeepsTheRingsLockIsKilledThoughItIsAForkedChild) {
  BPFGRANT_START("loop_step_budget", "gate_closes");
  LeaveIt();
  Nobody client;
  Connect(client);
  const std::string fd = MakeRing(client);
  ASSERT_EQ(client.Ask("job 0 1 1"), "ok");
  ASSERT_THAT(client.Ask("attach-ring puppet " + fd), StartsWith("ok"));
  ASSERT_THAT(client.Ask("fork"), StartsWith("ok"));
  // The child becomes the ring's submitter, and does not come back.
  ASSERT_THAT(client.Ask("child ring 1 2"), StartsWith("ok"));
  ASSERT_EQ(client.Ask("child enable 0"), "ok 0");
  client.Tell("child enter 0");
  EXPECT_EQ(client.Listen(std::chrono::milliseconds(300)), "");
  v1::RevokeRequest all;
  all.set_all(true);
  EXPECT_EQ(Revoke(all), 1u);
  const auto took = Bystander(kPatience);
  ASSERT_TRUE(took.has_value());
  EXPECT_LT(*took, kAttachDeadline + std::chrono::milliseconds(1000));
}

// Completions that nobody asked for are as untrusted as all shared memory.
TEST_F(HazardTest, CompletionsFromAnotherRingDoNoHarm) {
  BPFGRANT_START();
  Nobody client;
  MakeLoop(client);
  ASSERT_EQ(client.Ask("post 0 40"), "ok");
  ASSERT_EQ(client.Ask("put 0 0 nop"), "ok");
  EXPECT_THAT(client.Ask("enter 0"), StartsWith("ok 0"));
}

// Between attach and enable nothing forbids it yet.
TEST_F(HazardTest, AResizedRingStopsTheLoop) {
  BPFGRANT_START();
  Nobody client;
  Connect(client);
  const std::string fd = MakeRing(client);
  ASSERT_EQ(client.Ask("job 0 0 1"), "ok");
  ASSERT_THAT(client.Ask("attach-ring puppet " + fd), StartsWith("ok"));
  ASSERT_EQ(client.Ask("resize 0 1 2"), "ok 0");
  ASSERT_EQ(client.Ask("enable 0"), "ok 0");
  EXPECT_THAT(client.Ask("enter 0"), StartsWith("ok 0"));
  EXPECT_THAT(client.Ask("loop-status 0"),
              StartsWith(absl::StrCat("ok ", BPFGRANT_STOP_GEOMETRY, " ")));
}

TEST_F(HazardTest, ALoopWithoutItsMemoryStops) {
  BPFGRANT_START();
  Nobody client;
  Connect(client);
  const std::string fd = client.Word("ring 128 256", 1);
  ASSERT_THAT(client.Ask("attach-ring puppet " + fd), StartsWith("ok"));
  ASSERT_EQ(client.Ask("enable 0"), "ok 0");
  EXPECT_THAT(client.Ask("enter 0"), StartsWith("ok 0"));
  EXPECT_THAT(client.Ask("loop-status 0"),
              StartsWith(absl::StrCat("ok ", BPFGRANT_STOP_GEOMETRY, " ")));
}

}  // namespace
}  // namespace bpfgrant::test
