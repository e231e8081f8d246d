// That a unit which forbids what the daemon needs is noticed by those tests
// that run it as its unit confines it (under_unit.cc).

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/daemon_fixture.h"
#include "tests/harness/private_folder.h"

namespace bpfgrant::test {
namespace {

using ::testing::HasSubstr;

class UnderUnitTest : public DaemonTest {
 protected:
  void SetUp() override {
    DaemonTest::SetUp();
    ASSERT_EQ(setenv("BPFGRANT_TEST_DAEMON", UNDER_UNIT_PATH, 1), 0);
  }
  // Starts the daemon under the unit with `from` in it replaced by `to`.
  absl::Status StartChanged(const std::string& from, const std::string& to) {
    std::ostringstream text;
    text << std::ifstream(UNIT_FILE).rdbuf();
    EXPECT_THAT(text.str(), HasSubstr(from));
    const std::filesystem::path unit = folder_.path() / "unit";
    std::ofstream(unit) << absl::StrReplaceAll(text.str(), {{from, to}});
    DaemonOptions options;
    options.programs = {"packet_sampler"};
    options.environment = {"BPFGRANT_TEST_UNIT=" + unit.string()};
    return Daemon::Start(options).status();
  }

  PrivateFolder folder_{::testing::TempDir()};
};

TEST_F(UnderUnitTest, AsItIsItStarts) {
  const absl::Status started =
      StartChanged("bpf pidfd_getfd", "bpf pidfd_getfd");
  EXPECT_TRUE(started.ok()) << started;
}

TEST_F(UnderUnitTest, WithoutBpfItDoesNot) {
  EXPECT_FALSE(StartChanged("bpf pidfd_getfd seccomp", "seccomp").ok());
}

TEST_F(UnderUnitTest, WithoutUsersToBecomeItDoesNot) {
  EXPECT_FALSE(StartChanged("~@resources", "~@resources @setuid").ok());
}

}  // namespace
}  // namespace bpfgrant::test
