// What a client has given back counts against its quota for as long as it keeps
// any of it, however it does so.

#include <unistd.h>

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/process_tree.h"
#include "tests/harness/skip.h"
#include "tests/privileged/client_fixture.h"
#include "tests/privileged/private_bpffs.h"

namespace bpfgrant::test {
namespace {

// The maps that the client does not map into its memory.
constexpr char kSampler[] = "packet_sampler program handles=config,counters";
constexpr char kMapped[] = "packet_sampler program handles=samples";

// Keeps a part of grant `index`; returns what lets go of it.
struct Way {
  const char* name;
  const char* acquire;
  std::function<std::function<void()>(Nobody&, const std::string& index)> keep;
};

std::function<void()> Closing(Nobody& client, const std::string& socket) {
  return [&client, socket] { client.Do("close " + socket); };
}

std::vector<Way> Ways(const std::string& bpffs) {
  return {
      {"a copy of an fd", kSampler,
       [](Nobody& client, const std::string& index) {
         return Closing(client, client.Word("copy " + index + " config"));
       }},
      {"a forked child", kSampler,
       [](Nobody& client, const std::string&) {
         client.Do("fork");
         return [&client] { client.Do("end-child"); };
       }},
      {"a pin", kSampler,
       [bpffs](Nobody& client, const std::string& index) {
         const std::string pin = bpffs + "/kept";
         client.Do(absl::StrCat("pin ", index, " config ", pin));
         return [pin] { EXPECT_EQ(unlink(pin.c_str()), 0); };
       }},
      {"a filter on a socket", kSampler,
       [](Nobody& client, const std::string& index) {
         const std::string socket = client.Word("udp");
         client.Do(absl::StrCat("attach ", index, " ", socket));
         return Closing(client, socket);
       }},
      {"an fd in flight", kSampler,
       [](Nobody& client, const std::string& index) {
         return Closing(client, client.Word("in-flight " + index + " config"));
       }},
      {"a mapping", kMapped,
       [](Nobody& client, const std::string& index) {
         return [&client, index] { client.Do("unmap " + index); };
       }},
  };
}

class HeldTest : public ClientTest {
 protected:
  void SetUp() override {
    BPFGRANT_REQUIRE_CAPABILITIES(CAP_SYS_ADMIN);
    ClientTest::SetUp();
  }
  void StartWithQuota(int grants,
                      const std::vector<std::string>& without = {}) {
    DaemonOptions options;
    options.policy = absl::StrReplaceAll(
        kAllowAll, {{"grants: 4096", absl::StrCat("grants: ", grants)}});
    options.without = without;
    ASSERT_NO_FATAL_FAILURE(Start(options));
    ASSERT_EQ(Status().quota_returns(),
              without.empty() ? "when nothing is left in the kernel"
                              : "at release: the mitigation is off");
  }
  // A grant that the quota allows sooner or later: its index.
  static std::string AcquireAtLast(Nobody& client, const char* how) {
    std::string answer;
    EXPECT_TRUE(WaitUntil(
        [&] {
          answer = client.Ask(absl::StrCat("acquire ", how));
          return answer.starts_with("ok ");
        },
        kPatience))
        << answer;
    return answer.substr(3, answer.find(' ', 3) - 3);
  }
  void WaitUntilNothingIsHeld() {
    EXPECT_TRUE(WaitUntil([&] { return Status().held() == 0; }, kPatience));
  }
};

TEST_F(HeldTest, CountsUntilItIsLetGoOf) {
  const PrivateBpffs bpffs;
  ASSERT_NO_FATAL_FAILURE(StartWithQuota(1));
  Nobody client;
  Connect(client);
  for (const Way& way : Ways(bpffs.path())) {
    SCOPED_TRACE(way.name);
    const std::string index = AcquireAtLast(client, way.acquire);
    const auto let_go = way.keep(client, index);
    EXPECT_EQ(client.Ask("release " + index), "ok");
    EXPECT_EQ(client.Ask(absl::StrCat("acquire ", way.acquire)),
              "refused quota");
    EXPECT_EQ(Status().held(), 1u);
    EXPECT_EQ(Status().grants(), 0u);
    let_go();
    const std::string next = AcquireAtLast(client, kSampler);
    EXPECT_EQ(client.Ask("release " + next), "ok");
    WaitUntilNothingIsHeld();
  }
}

TEST_F(HeldTest, IsHadBesideTheQuotaWithoutTheMitigation) {
  const PrivateBpffs bpffs;
  ASSERT_NO_FATAL_FAILURE(StartWithQuota(1, {"quota_until_gone"}));
  Nobody client;
  Connect(client);
  for (const Way& way : Ways(bpffs.path())) {
    SCOPED_TRACE(way.name);
    const Acquired kept = client.Acquire(way.acquire);
    const auto let_go = way.keep(client, kept.index);
    EXPECT_EQ(client.Ask("release " + kept.index), "ok");
    const Acquired more = client.Acquire(way.acquire);
    EXPECT_EQ(client.Ask("release " + more.index), "ok");
    client.Do("unmap " + more.index);
    let_go();
    ExpectGone(kept.objects());
  }
}

// The map of one grant lives on in the program of another.
TEST_F(HeldTest, AMapThatIsBoundToAnotherGrantsProgram) {
  ASSERT_NO_FATAL_FAILURE(StartWithQuota(2));
  Nobody client;
  Connect(client);
  const Acquired keeper = client.Acquire(kSampler);
  const Acquired kept = client.Acquire(kSampler);
  client.Do(absl::StrCat("bind ", keeper.index, " ", kept.index, " config"));
  EXPECT_EQ(client.Ask("release " + kept.index), "ok");
  EXPECT_EQ(client.Ask(absl::StrCat("acquire ", kSampler)), "refused quota");
  const auto grants = administrator().Grants();
  ASSERT_TRUE(grants.ok());
  ASSERT_EQ(grants->grant_size(), 2);
  EXPECT_EQ(grants->grant(1).ended(), v1::REASON_RELEASED);
  EXPECT_TRUE(grants->grant(1).held().starts_with(
      absl::StrCat("map ", kept.ids.at("config"))))
      << grants->grant(1).held();
  EXPECT_EQ(client.Ask("release " + keeper.index), "ok");
  AcquireAtLast(client, kSampler);
  AcquireAtLast(client, kSampler);
}

// Neither another session nor the first one's end make it somebody else's.
TEST_F(HeldTest, CountsAcrossTheUsersSessions) {
  ASSERT_NO_FATAL_FAILURE(StartWithQuota(1));
  Nobody hoarder, other;
  Connect(hoarder);
  Connect(other);
  const Acquired kept = hoarder.Acquire(kSampler);
  hoarder.Do("copy " + kept.index + " config");
  hoarder.Do("disconnect");
  EXPECT_EQ(other.Ask(absl::StrCat("acquire ", kSampler)), "refused quota");
  hoarder.KillAndReap();
  AcquireAtLast(other, kSampler);
}

TEST_F(HeldTest, NothingIsLeftAfterAReleaseThatWaits) {
  ASSERT_NO_FATAL_FAILURE(StartWithQuota(1));
  Nobody client;
  Connect(client);
  const Acquired acquired = client.Acquire(kSampler);
  const std::string copy = client.Word("copy " + acquired.index + " config");
  EXPECT_EQ(client.Ask("release-wait " + acquired.index + " 200"),
            "refused still-held");
  client.Do("close " + copy);
  // It may be known by now that nothing is left.
  EXPECT_THAT(client.Ask("release-wait " + acquired.index + " 20000"),
              ::testing::AnyOf("ok", "refused unknown-grant"));
  const auto left =
      WaitUntilGone(acquired.objects(), std::chrono::milliseconds(0));
  ASSERT_TRUE(left.ok()) << left.status();
  EXPECT_TRUE(left->empty()) << left->Describe();
  EXPECT_EQ(client.Ask("release-wait " + acquired.index + " 200"),
            "refused unknown-grant");
}

// A quota of one is enough for as many as one likes, one after the other.
TEST_F(HeldTest, TakingAndGivingBackInARowIsNeverRefused) {
  ASSERT_NO_FATAL_FAILURE(StartWithQuota(1));
  Nobody client;
  Connect(client);
  for (int i = 0; i < 20; ++i) {
    const Acquired acquired = client.Acquire(kSampler);
    EXPECT_EQ(client.Ask("release " + acquired.index), "ok");
  }
}

}  // namespace
}  // namespace bpfgrant::test
