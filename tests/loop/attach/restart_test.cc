// Loops, over a restart of the daemon.

#include <csignal>

#include "absl/strings/str_cat.h"
#include "tests/harness/kernel_features.h"
#include "tests/harness/process_tree.h"
#include "tests/harness/skip.h"
#include "tests/loop/attach/attach_fixture.h"
#include "tests/loop/place.h"

namespace bpfgrant::test {
namespace {

class LoopRestartTest : public AttachTest {
 protected:
  void Restart(const std::function<void()>& meanwhile) {
    const absl::Status status =
        daemon().Restart(Daemon::Process::kLoader, SIGKILL, meanwhile);
    ASSERT_TRUE(status.ok()) << std::string(status.message());
    // What is left in the end is another daemon's.
    LeaveIt();
  }
  // Of four requests, how the loop did.
  static std::string Run(Nobody& client) {
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(client.Ask(absl::StrCat("put 0 ", i, " nop")), "ok");
    }
    return client.Ask("enter 0");
  }
};

TEST_F(LoopRestartTest, ItGoesOnAndCanBeTakenBack) {
  BPFGRANT_START_WITH_STORE();
  Nobody client;
  MakeLoop(client, PUPPET_SUBMIT, 4);
  EXPECT_EQ(Run(client), "ok 0 4 0");
  std::string meanwhile;
  ASSERT_NO_FATAL_FAILURE(Restart([&] { meanwhile = Run(client); }));
  EXPECT_EQ(meanwhile, "ok 0 4 0");
  EXPECT_EQ(Run(client), "ok 0 4 0");
  EXPECT_EQ(client.Ask("ended 0"), "ok live");
  EXPECT_EQ(daemon().store().Count("link."), 1u);
  EXPECT_EQ(client.Ask("release 0"), "ok");
  // An ordinary ring that may do NOPs is left.
  ASSERT_EQ(client.Ask("put 0 0 nop"), "ok");
  EXPECT_TRUE(WaitUntil(
      [&] { return client.Ask("enter 0 1").starts_with("ok 1"); }, kPatience));
  EXPECT_TRUE(WaitUntil([&] { return daemon().store().Count("link.") == 0; },
                        kPatience));
}

TEST_F(LoopRestartTest, WhoDiedMeanwhileLeavesNothing) {
  BPFGRANT_START_WITH_STORE();
  Nobody client;
  MakeLoop(client, PUPPET_SUBMIT, 4);
  ASSERT_NO_FATAL_FAILURE(Restart([&] { client.KillAndReap(); }));
  EXPECT_EQ(Status().grants(), 0u);
  EXPECT_TRUE(WaitUntil([&] { return daemon().store().Count("link.") == 0; },
                        kPatience));
}

}  // namespace
}  // namespace bpfgrant::test
