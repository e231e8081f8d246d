// The C library with a real daemon: what a client does with it, and what it
// does wrongly, twice and too late.

#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/harness/daemon_fixture.h"
#include "tests/harness/kernel_features.h"
#include "tests/harness/unprivileged.h"

namespace bpfgrant::test {
namespace {

constexpr char kPolicy[] = R"(
rule {
  name: "one sampler"
  effect: ALLOW
  user: "65534"
  program: "packet_sampler"
  quota { grants: 1 }
  trusted: true
}
rule {
  name: "others"
  effect: ALLOW
  user: "65534"
  program: "chain"
  program: "flow_filter"
  program: "missing"
  program: "turned"
  quota { grants: 8 }
  trusted: true
}
rule {
  name: "no steering"
  effect: DENY
  everyone: true
  program: "reuseport_steer"
}
)";

class CLibraryTest : public DaemonTest {
 protected:
  // Has the client do one of the things that it can do, with these programs.
  void Try(const std::string& what, std::vector<std::string> programs) {
    ASSERT_TRUE(StartDaemon({.policy = kPolicy,
                             .config = kNothingAhead,
                             .programs = std::move(programs),
                             .start_timeout = std::chrono::seconds(60)}));
    UnprivilegedOptions options;
    options.timeout = std::chrono::minutes(2);
    outcome_ =
        RunUnprivileged(CLIENT_PATH, {daemon().broker_socket(), what}, options);
    EXPECT_TRUE(outcome_.ok()) << outcome_.Describe();
    EXPECT_NE(outcome_.output.find("well\n"), std::string::npos);
  }

  Outcome outcome_;
};

TEST_F(CLibraryTest, Grants) { Try("grants", kTwoPrograms); }

TEST_F(CLibraryTest, Mistakes) {
  Try("mistakes", {"packet_sampler", "reuseport_steer", "flow_filter"});
}

TEST_F(CLibraryTest, UserRingBuffers) { Try("memory", {"flow_filter"}); }

TEST_F(CLibraryTest, SwappableMaps) {
  // The tests' own program is all there is.
  ASSERT_EQ(setenv("BPFGRANT_TEST_CATALOG", TURNED_CATALOG, /*replace=*/1), 0);
  Try("rotate", {"turned"});
  unsetenv("BPFGRANT_TEST_CATALOG");
}

TEST_F(CLibraryTest, Loops) {
  Try("loops", {"chain"});
  EXPECT_EQ(outcome_.output.find("in the kernel\n") != std::string::npos,
            KernelHasLoops());
}

}  // namespace
}  // namespace bpfgrant::test
