// What a ring must be: each thing that it must not be is refused, by its own
// reason, and leaves nothing behind.

#include <fcntl.h>

#include "absl/strings/str_cat.h"
#include "proto/wire/ring.h"
#include "tests/harness/kernel_features.h"
#include "tests/harness/skip.h"
#include "tests/loop/attach/attach_fixture.h"
#include "tests/loop/place.h"

namespace bpfgrant::test {
namespace {

using ::testing::StartsWith;

class RefusalTest : public AttachTest {
 protected:
  std::string Flag(char sign, uint32_t flag) {
    return absl::StrCat(" ", std::string(1, sign), flag);
  }
  // What comes of asking for the puppet on a ring made in this way.
  std::string Attach(const std::string& how) {
    Nobody client;
    Connect(client);
    return client.Ask("attach-ring puppet " + MakeRing(client, how));
  }
};

TEST_F(RefusalTest, TakesTheRingThatTheManifestDescribes) {
  BPFGRANT_START();
  EXPECT_THAT(Attach("128 256"), StartsWith("ok"));
}

TEST_F(RefusalTest, NoRingIsNamed) {
  BPFGRANT_START();
  Nobody client;
  Connect(client);
  EXPECT_EQ(client.Ask("attach-ring puppet"), "refused ring-needed");
  EXPECT_EQ(client.Ask("attach-ring puppet -1"), "refused ring-needed");
}

TEST_F(RefusalTest, TheNumberIsNoFd) {
  BPFGRANT_START();
  Nobody client;
  Connect(client);
  EXPECT_EQ(client.Ask("attach-ring puppet 4000"), "refused ring-not-yours");
  EXPECT_EQ(client.Ask("attach-ring puppet 2147483647"),
            "refused ring-not-yours");
}

TEST_F(RefusalTest, TheFdIsASocket) {
  BPFGRANT_START();
  Nobody client;
  Connect(client);
  EXPECT_EQ(client.Ask("attach-ring puppet " + client.Word("tcp")),
            "refused not-a-ring");
  // Its own standard input.
  EXPECT_EQ(client.Ask("attach-ring puppet 0"), "refused not-a-ring");
}

TEST_F(RefusalTest, TheRingIsAnotherProcesss) {
  BPFGRANT_START();
  Nobody owner, thief;
  Connect(owner);
  Connect(thief);
  // The owner has the ring under that number, and the thief has nothing there.
  for (int i = 0; i < 8; ++i) MakeRing(owner);
  const std::string fd = MakeRing(owner);
  EXPECT_EQ(thief.Ask("attach-ring puppet " + fd), "refused ring-not-yours");
  EXPECT_THAT(owner.Ask("attach-ring puppet " + fd), StartsWith("ok"));
}

TEST_F(RefusalTest, TheRingIsClosed) {
  BPFGRANT_START();
  Nobody client;
  Connect(client);
  const std::string fd = MakeRing(client);
  ASSERT_EQ(client.Ask("close-ring 0"), "ok");
  EXPECT_EQ(client.Ask("attach-ring puppet " + fd), "refused ring-not-yours");
}

TEST_F(RefusalTest, TheRingIsEnabledFromTheStart) {
  BPFGRANT_START();
  EXPECT_EQ(Attach("128 256" + Flag('-', kSetupDisabled)),
            "refused ring-not-disabled");
}

TEST_F(RefusalTest, TheRingWasEnabled) {
  BPFGRANT_START();
  Nobody client;
  Connect(client);
  const std::string fd = MakeRing(client);
  ASSERT_EQ(client.Ask("enable 0"), "ok 0");
  EXPECT_EQ(client.Ask("attach-ring puppet " + fd),
            "refused ring-not-disabled");
}

TEST_F(RefusalTest, TheRingHasRestrictions) {
  BPFGRANT_START();
  Nobody client;
  Connect(client);
  const std::string fd = MakeRing(client);
  ASSERT_EQ(client.Ask("restrict 0 0"), "ok 0");
  EXPECT_EQ(client.Ask("attach-ring puppet " + fd), "refused ring-restricted");
}

TEST_F(RefusalTest, TheRingHasALoopAlready) {
  BPFGRANT_START();
  Nobody client;
  Connect(client);
  const std::string fd = MakeRing(client);
  EXPECT_THAT(client.Ask("attach-ring puppet " + fd), StartsWith("ok"));
  EXPECT_EQ(client.Ask("attach-ring puppet " + fd), "refused ring-restricted");
  // The first one works.
  ASSERT_EQ(client.Ask("job 0 0 1"), "ok");
  ASSERT_EQ(client.Ask("put 0 0 nop"), "ok");
  ASSERT_EQ(client.Ask("enable 0"), "ok 0");
  EXPECT_EQ(client.Ask("enter 0"), "ok 0 1 0");
}

TEST_F(RefusalTest, TheRingHadALoopBefore) {
  BPFGRANT_START();
  Nobody client;
  Connect(client);
  const std::string fd = MakeRing(client);
  EXPECT_THAT(client.Ask("attach-ring puppet " + fd), StartsWith("ok"));
  EXPECT_EQ(client.Ask("release 0"), "ok");
  EXPECT_EQ(client.Ask("attach-ring puppet " + fd), "refused ring-restricted");
}

TEST_F(RefusalTest, TheRingHasSqPoll) {
  BPFGRANT_START();
  EXPECT_EQ(Attach("128 256" + Flag('+', kSetupSqPoll) +
                   Flag('-', kSetupDeferTaskrun) + Flag('-', kSetupSqRewind)),
            "refused ring-flags");
}

TEST_F(RefusalTest, TheRingDoesNotDeferItsWork) {
  BPFGRANT_START();
  EXPECT_EQ(Attach("128 256" + Flag('-', kSetupDeferTaskrun)),
            "refused ring-flags");
}

TEST_F(RefusalTest, TheRingIsTooSmall) {
  BPFGRANT_START();
  EXPECT_EQ(Attach("64 256"), "refused ring-geometry");
  EXPECT_EQ(Attach("128 128"), "refused ring-geometry");
  EXPECT_EQ(Attach("1 2"), "refused ring-geometry");
}

TEST_F(RefusalTest, TheRingIsTooLarge) {
  BPFGRANT_START();
  EXPECT_EQ(Attach("256 256"), "refused ring-geometry");
  EXPECT_EQ(Attach("128 4096"), "refused ring-geometry");
}

TEST_F(RefusalTest, TwoSessionsWantOneRingAtOnce) {
  BPFGRANT_START();
  Nobody client;
  Connect(client);
  const std::string fd = MakeRing(client);
  // The child has the same ring under the same number, and a session of its
  // own.
  ASSERT_THAT(client.Ask("fork"), StartsWith("ok"));
  ASSERT_THAT(client.Ask("child connect " + daemon().broker_socket()),
              StartsWith("ok"));
  client.Tell("attach-ring puppet " + fd);
  client.Tell("child attach-ring puppet " + fd);
  const std::string first = client.Answer(kPatience);
  const std::string second = client.Answer(kPatience);
  const bool first_has_it = first.starts_with("ok");
  EXPECT_EQ(first_has_it ? second : first, "refused ring-restricted");
  EXPECT_THAT(first_has_it ? first : second, StartsWith("ok"));
}

TEST_F(RefusalTest, ALoopIsNoProgramAndNoAttachment) {
  BPFGRANT_START();
  Nobody client;
  Connect(client);
  EXPECT_EQ(client.Ask("acquire puppet program"),
            "refused delivery-not-allowed");
  EXPECT_EQ(client.Ask("acquire puppet attach"),
            "refused delivery-not-allowed");
}

TEST(OldKernelTest, ALoopIsUnavailableAndSaysWhy) {
  if (KernelHasLoops()) GTEST_SKIP() << "kernel: no lack of io_uring loops";
  BPFGRANT_REQUIRE_CAPABILITIES(CAP_BPF, CAP_PERFMON);
  auto daemon = Daemon::Start({.policy = kAllowAll, .build_catalog = false});
  ASSERT_TRUE(daemon.ok()) << daemon.status();
  const std::string folder = ATTACH_CATALOG;
  (*daemon)->AddCatalogEntry("puppet", ReadFile(folder + "/puppet.manifest"),
                             folder + "/puppet.bpf.o");
  ASSERT_TRUE((*daemon)->Reload().ok());
  auto connection = Connection::Connect({.path = (*daemon)->broker_socket()});
  ASSERT_TRUE(connection.ok()) << connection.status();
  const auto described = connection->Describe("puppet");
  ASSERT_TRUE(described.ok()) << described.status();
  EXPECT_FALSE(described->summary().available());
  EXPECT_EQ(described->summary().reason(), v1::REASON_KERNEL_TOO_OLD);
  EXPECT_THAT(described->refusal(), ::testing::HasSubstr("io_uring_bpf_ops"));
  const auto status = connection->Status();
  ASSERT_TRUE(status.ok());
  EXPECT_FALSE(status->kernel().io_uring_loops());
}

}  // namespace
}  // namespace bpfgrant::test
