// What each capability of the daemon's unit is for: what fails without it, and
// nothing else does. SECURITY.md, "What each process keeps", says the same.

#include <linux/capability.h>
#include <sys/capability.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/kernel_features.h"
#include "tests/privileged/client_fixture.h"

namespace bpfgrant::test {
namespace {

using ::testing::HasSubstr;

// As CapabilityBoundingSet= of the unit has it.
std::vector<int> OfTheUnit() {
  constexpr std::string_view kKey = "CapabilityBoundingSet=";
  std::ifstream file(UNIT_FILE);
  std::vector<int> capabilities;
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(kKey)) continue;
    for (const std::string& name : std::vector<std::string>(
             absl::StrSplit(line.substr(kKey.size()), ' '))) {
      cap_value_t value = -1;
      EXPECT_EQ(cap_from_name(absl::AsciiStrToLower(name).c_str(), &value), 0)
          << name;
      capabilities.push_back(value);
    }
  }
  return capabilities;
}

std::vector<int> AllBut(const std::vector<int>& kept) {
  std::vector<int> others;
  for (int capability = 0; capability < cap_max_bits(); ++capability) {
    if (std::find(kept.begin(), kept.end(), capability) == kept.end()) {
      others.push_back(capability);
    }
  }
  return others;
}

class CapabilityTest : public ClientTest {
 protected:
  // What the unit leaves the daemon, but for these.
  static DaemonOptions UnitWithout(const std::vector<int>& missing) {
    DaemonOptions options;
    options.programs = {"packet_sampler"};
    options.policy = kAllowAll;
    std::vector<int> kept = OfTheUnit();
    std::erase_if(kept, [&](int capability) {
      return std::find(missing.begin(), missing.end(), capability) !=
             missing.end();
    });
    options.without_capabilities = AllBut(kept);
    return options;
  }
  void ExpectNotStarted(int missing, const std::string& why) {
    const auto started = Daemon::Start(UnitWithout({missing}));
    ASSERT_FALSE(started.ok());
    EXPECT_THAT(started.status().message(), HasSubstr(why));
  }
  // A grant of a program, in use.
  void ExpectServes() {
    Nobody client;
    Connect(client);
    client.Do("udp");
    client.Acquire("packet_sampler program");
    client.Do("attach 0 0");
    EXPECT_EQ(client.Ask("traffic 0 10 0"), "ok 10 10");
    RevokeGrant(1);
    EXPECT_EQ(client.Ask("traffic 0 10 0"), "ok 10 0");
  }
};

TEST_F(CapabilityTest, ThoseOfTheUnitSuffice) {
  EXPECT_EQ(OfTheUnit().size(), 7u);
  ASSERT_NO_FATAL_FAILURE(Start(UnitWithout({})));
  ExpectServes();
}

TEST_F(CapabilityTest, WithoutBpfOrPerfmonNothingStarts) {
  for (const int missing : {CAP_BPF, CAP_PERFMON}) {
    ExpectNotStarted(missing, "the loader needs CAP_BPF and CAP_PERFMON");
  }
}

TEST_F(CapabilityTest, WithoutTheThreeForTheDropNothingStarts) {
  ExpectNotStarted(CAP_SETPCAP, "dropping privileges, bounding set");
  ExpectNotStarted(CAP_SETGID, "dropping privileges, groups");
  ExpectNotStarted(CAP_SETUID, "dropping privileges, uid");
}

TEST_F(CapabilityTest, WithoutPtraceExecutablesAreUnknown) {
  if (KernelHasLoops()) {
    ExpectNotStarted(CAP_SYS_PTRACE, "for io_uring loops CAP_SYS_PTRACE");
    return;
  }
  DaemonOptions options = UnitWithout({CAP_SYS_PTRACE});
  absl::StrAppend(&options.policy,
                  "rule { name: 'by-file' effect: ALLOW program: '*' "
                  "quota { grants: 1 } executable { path: '/x' } }");
  ASSERT_NO_FATAL_FAILURE(Start(options));
  EXPECT_THAT(daemon().Log(), HasSubstr("started without CAP_SYS_PTRACE"));
  ExpectServes();
  // A rule by executable matches nobody, not even who executes that file.
  daemon().WritePolicy(absl::StrCat(
      "rule { name: 'by-file' effect: ALLOW program: '*' quota { grants: 1 } "
      "executable { path: '",
      Nobody::Path(), "' } }"));
  const absl::Status reloaded = daemon().Reload();
  ASSERT_TRUE(reloaded.ok()) << reloaded;
  Nobody client;
  Connect(client);
  EXPECT_THAT(client.Ask("acquire packet_sampler program"),
              HasSubstr("refused denied-by-default"));
}

TEST_F(CapabilityTest, WithoutKillThereAreNoLoops) {
  if (KernelHasLoops()) {
    ExpectNotStarted(CAP_KILL,
                     "for io_uring loops CAP_SYS_PTRACE and CAP_KILL");
    return;
  }
  ASSERT_NO_FATAL_FAILURE(Start(UnitWithout({CAP_KILL})));
  ExpectServes();
}

}  // namespace
}  // namespace bpfgrant::test
