// A loop's life, and how it ends: whatever ends first, nothing is left.

#include <csignal>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/bpfgrant/mapped_array.h"
#include "tests/harness/process_tree.h"
#include "tests/loop/attach/attach_fixture.h"

namespace bpfgrant::test {
namespace {

using ::testing::AnyOf;
using ::testing::StartsWith;

using LifeTest = AttachTest;

TEST_F(LifeTest, RunsRequestsOfAClientWithoutPrivilege) {
  BPFGRANT_START();
  Nobody client;
  MakeLoop(client, PUPPET_SUBMIT, 4);
  for (int i = 0; i < 4; ++i) {
    ASSERT_EQ(client.Ask(absl::StrCat("put 0 ", i, " nop")), "ok");
  }
  EXPECT_EQ(client.Ask("enter 0"), "ok 0 4 0");
  EXPECT_THAT(client.Ask("loop-status 0"),
              StartsWith(absl::StrCat("ok ", BPFGRANT_STOP_DONE, " 0 ")));
  EXPECT_EQ(client.Ask("enter 0"), "ok 0 4 0");
}

TEST_F(LifeTest, RunsAProgramThatWasWrittenElsewhere) {
  BPFGRANT_START();
  ASSERT_NO_FATAL_FAILURE(AddProgram("foreign"));
  Nobody client;
  Connect(client);
  const std::string fd = client.Word("ring 8 16", 1);
  ASSERT_THAT(client.Ask("attach-ring foreign " + fd), StartsWith("ok"));
  // The job is 5000 requests, one after the other.
  ASSERT_EQ(client.Ask("number 0 job 0 5000"), "ok 5000");
  ASSERT_EQ(client.Ask("enable 0"), "ok 0");
  EXPECT_THAT(client.Ask("enter 0"), StartsWith("ok 0"));
  EXPECT_EQ(client.Ask("number 0 job 2"), "ok 5000");
}

TEST_F(LifeTest, AnswersOfTheAuthorsReachTheClient) {
  BPFGRANT_START();
  Nobody client;
  MakeLoop(client, PUPPET_ANSWER, BPFGRANT_STOP_PASSED);
  EXPECT_THAT(client.Ask("enter 0"), StartsWith("ok 0"));
  EXPECT_THAT(client.Ask("loop-status 0"),
              StartsWith(absl::StrCat("ok ", BPFGRANT_STOP_PASSED, " 0 ")));
  ASSERT_EQ(client.Ask(absl::StrCat("job 0 ", PUPPET_ANSWER, " ",
                                    static_cast<uint32_t>(-EPROTO))),
            "ok");
  EXPECT_THAT(client.Ask("enter 0"), StartsWith("ok 0"));
  EXPECT_THAT(
      client.Ask("loop-status 0"),
      StartsWith(absl::StrCat("ok ", BPFGRANT_STOP_ERROR, " ", -EPROTO, " ")));
}

TEST_F(LifeTest, ReleaseTakesItOffTheRing) {
  BPFGRANT_START();
  Nobody client;
  MakeLoop(client);
  ASSERT_EQ(client.Ask("release 0"), "ok");
  ASSERT_EQ(client.Ask("put 0 0 nop"), "ok");
  // What is left is an ordinary ring that may do NOPs.
  EXPECT_TRUE(WaitUntil(
      [&] { return client.Ask("enter 0 1").starts_with("ok 1"); }, kPatience));
}

TEST_F(LifeTest, RevokedWhileItSleeps) {
  BPFGRANT_START();
  Nobody client;
  MakeLoop(client, PUPPET_SLEEP, 1);
  ASSERT_EQ(client.Ask("put 0 0 nop"), "ok");
  client.Tell("enter 0");
  EXPECT_EQ(client.Listen(std::chrono::milliseconds(300)), "");
  v1::RevokeRequest all;
  all.set_all(true);
  EXPECT_EQ(Revoke(all), 1u);
  // Linux does not wake who sleeps in a loop that is taken away; a signal does.
  kill(client.pid(), SIGCONT);
  client.KillAndReap();
}

TEST_F(LifeTest, TheClientIsKilledAtEachStep) {
  BPFGRANT_START();
  for (int step = 0; step < 5; ++step) {
    Nobody client;
    Connect(client);
    const std::string fd = MakeRing(client);
    ASSERT_EQ(client.Ask("job 0 1 1"), "ok");
    if (step == 1) client.Tell("attach-ring puppet " + fd);
    if (step >= 2) client.Ask("attach-ring puppet " + fd);
    if (step >= 3) client.Ask("enable 0");
    if (step >= 4) client.Tell("spin 0");
    client.KillAndReap();
  }
}

TEST_F(LifeTest, TheRingIsClosedWhileItIsAskedFor) {
  BPFGRANT_START();
  Nobody client;
  Connect(client);
  for (int i = 0; i < 20; ++i) {
    const std::vector<std::string> ring = client.Do("ring 128 256");
    client.Tell("attach-ring puppet " + ring[1]);
    // The answer to the former may be either; a copy keeps the ring alive until
    // the loop is on it.
    client.Tell("close-ring " + ring[0]);
    EXPECT_THAT(client.Answer(kPatience),
                AnyOf(StartsWith("ok"), StartsWith("refused ring-not-yours")));
    EXPECT_EQ(client.Answer(kPatience), "ok");
  }
}

// The loader has the links: they end with it, whatever the gates say.
TEST_F(LifeTest, LoopsEndWithTheLoader) {
  BPFGRANT_START();
  LeaveIt();
  Nobody client;
  MakeLoop(client, PUPPET_SPIN);
  daemon().Kill(Daemon::Process::kLoader, SIGKILL);
  daemon().WaitForEnd(kPatience);
  ASSERT_EQ(client.Ask("job 0 0 1"), "ok");
  ASSERT_EQ(client.Ask("put 0 0 nop"), "ok");
  // Without a loop an enter submits what the client says.
  EXPECT_TRUE(WaitUntil(
      [&] { return client.Ask("enter 0 1").starts_with("ok 1"); }, kPatience));
}

TEST_F(LifeTest, LoopsEndWithTheBroker) {
  BPFGRANT_START();
  LeaveIt();
  Nobody client;
  MakeLoop(client, PUPPET_SPIN);
  daemon().Kill(Daemon::Process::kBroker, SIGKILL);
  daemon().WaitForEnd(kPatience);
  ASSERT_EQ(client.Ask("put 0 0 nop"), "ok");
  EXPECT_TRUE(WaitUntil(
      [&] { return client.Ask("enter 0 1").starts_with("ok 1"); }, kPatience));
}

// Puts a sharer onto a new ring, runs it, and returns what it has counted.
std::string RunSharer(Nobody& client, const std::string& index,
                      const std::string& fd) {
  EXPECT_THAT(client.Ask("attach-ring sharer " + fd), StartsWith("ok"));
  EXPECT_EQ(client.Ask("enable " + index), "ok 0");
  const std::vector<std::string> result = client.Do("enter " + index);
  return result.size() == 3 ? result[2] : "";
}

TEST_F(LifeTest, GrantsOfASessionShareAMapAndOthersDoNot) {
  BPFGRANT_START();
  ASSERT_NO_FATAL_FAILURE(AddProgram("sharer"));
  Nobody client, other;
  Connect(client);
  Connect(other);
  EXPECT_EQ(RunSharer(client, "0", MakeRing(client)), "1");
  EXPECT_EQ(RunSharer(client, "1", MakeRing(client)), "2");
  EXPECT_EQ(RunSharer(other, "0", MakeRing(other)), "1");
  // It lives as long as the session, not as long as the grant that made it.
  ASSERT_EQ(client.Ask("release 0"), "ok");
  ASSERT_EQ(client.Ask("release 1"), "ok");
  EXPECT_EQ(RunSharer(client, "2", MakeRing(client)), "3");
  // Its handle has the manifest's rights and no more.
  EXPECT_EQ(client.Ask("map 2 shared lookup"), "ok");
  EXPECT_EQ(client.Ask("map 2 shared update"), "error EPERM");
}

TEST_F(LifeTest, WhatASessionSharedCountsWhenItIsKeptBeyondIt) {
  BPFGRANT_START();
  ASSERT_NO_FATAL_FAILURE(AddProgram("sharer"));
  Nobody client;
  Connect(client);
  EXPECT_EQ(RunSharer(client, "0", MakeRing(client)), "1");
  const std::string copy = client.Word("copy 0 shared");
  ASSERT_EQ(client.Ask("release 0"), "ok");
  // The loop with its link and its own maps goes; what is shared is not its
  // own.
  const auto held = [&] { return Status().held(); };
  EXPECT_TRUE(WaitUntil([&] { return held() == 0; }, kPatience));
  ASSERT_EQ(client.Ask("disconnect"), "ok");
  EXPECT_TRUE(WaitUntil(
      [&] {
        const auto grants = administrator().Grants();
        return grants.ok() && grants->grant_size() == 1 &&
               absl::StrContains(grants->grant(0).held(), "(shared_state)");
      },
      kPatience));
  ASSERT_EQ(client.Ask("close " + copy), "ok");
  EXPECT_TRUE(WaitUntil([&] { return held() == 0; }, kPatience));
}

TEST_F(LifeTest, ManyAtOnce) {
  BPFGRANT_START();
  Nobody client;
  Connect(client);
  for (int i = 0; i < 32; ++i) {
    const std::string fd = MakeRing(client);
    ASSERT_THAT(client.Ask("attach-ring puppet " + fd), StartsWith("ok"));
    ASSERT_EQ(client.Ask(absl::StrCat("job ", i, " 0 1")), "ok");
    ASSERT_EQ(client.Ask(absl::StrCat("put ", i, " 0 nop")), "ok");
    ASSERT_EQ(client.Ask(absl::StrCat("enable ", i)), "ok 0");
  }
  for (int i = 0; i < 32; ++i) {
    EXPECT_EQ(client.Ask(absl::StrCat("enter ", i)), "ok 0 1 0");
  }
}

}  // namespace
}  // namespace bpfgrant::test
