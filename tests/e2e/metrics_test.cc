// metrics and top, as a monitoring system and an administrator meet them.

#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bpfgrant/v1/metrics.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/e2e/bpfgrantctl_fixture.h"
#include "tests/harness/private_folder.h"

namespace bpfgrant::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

// The families that the reference's strict parser finds, one a line with the
// number of its samples; what it complains of otherwise.
std::string Parse(const std::string& text) {
  const PrivateFolder folder;
  const std::string file = folder.path() / "metrics";
  std::ofstream(file) << text;
  UnprivilegedOptions options = AsRoot();
  const Outcome outcome = RunUnprivileged(
      "/usr/bin/python3",
      {"-c",
       "import sys\n"
       "from prometheus_client.openmetrics.parser import "
       "text_string_to_metric_families as parse\n"
       "for family in parse(open(sys.argv[1]).read()):\n"
       "  assert family.documentation, family.name\n"
       "  print(family.name, family.type, len(family.samples))\n",
       file},
      options);
  EXPECT_THAT(outcome.errors, IsEmpty()) << text;
  return outcome.output;
}

using MetricsTest = BpfgrantctlTest;

TEST_F(MetricsTest, AreOpenMetrics) {
  Connection connection = Connect();
  const Grant grant = Acquire(connection);
  EXPECT_EQ(Nobody({"explain", "reuseport_steer"}).exit_code, kRefused);
  EXPECT_EQ(Nobody({"revoke", "--all"}).exit_code, kRefused);
  const Outcome root = Root({"metrics"});
  EXPECT_TRUE(root.ok()) << root.Describe();
  const std::string families = Parse(root.output);
  EXPECT_THAT(families,
              AllOf(HasSubstr("bpfgrant_build info 1\n"),
                    HasSubstr("bpfgrant_grants gauge 1\n"),
                    HasSubstr("bpfgrant_programs gauge 2\n"),
                    HasSubstr("bpfgrant_program_grants gauge 2\n"),
                    HasSubstr("bpfgrant_pool_ready gauge 2\n"),
                    HasSubstr("bpfgrant_refusals counter 1\n"),
                    // Buckets, count and sum.
                    HasSubstr("bpfgrant_acquire_seconds histogram 60\n"),
                    HasSubstr("bpfgrant_load_seconds histogram 30\n"),
                    HasSubstr("bpfgrant_program_runs counter "),
                    HasSubstr("bpfgrant_ring_buffer_used_bytes gauge 1\n")));
  EXPECT_THAT(root.output,
              AllOf(HasSubstr("\nbpfgrant_refusals_total{reason=\"not-"
                              "administrator\"} 1\n"),
                    HasSubstr("\nbpfgrant_program_grants{program=\"packet_"
                              "sampler\"} 1\n"),
                    HasSubstr("\nbpfgrant_acquired_total 1\n"),
                    HasSubstr("\n# EOF\n")));
  const auto reply =
      FromJson<v1::MetricsReply>(Root({"metrics", "--json"}).output);
  EXPECT_THAT(reply.text(), HasSubstr("bpfgrant_sessions "));
}

// Neither of programs and users, nor of what others were refused.
TEST_F(MetricsTest, TellEverybodyAggregatesOnly) {
  EXPECT_EQ(Nobody({"revoke", "--all"}).exit_code, kRefused);
  const Outcome nobody = Nobody({"metrics"});
  EXPECT_TRUE(nobody.ok()) << nobody.Describe();
  EXPECT_THAT(Parse(nobody.output),
              AllOf(HasSubstr("bpfgrant_grants gauge 1\n"),
                    HasSubstr("bpfgrant_acquired counter 1\n")));
  EXPECT_THAT(
      nobody.output,
      AllOf(Not(HasSubstr("program=")), Not(HasSubstr("reason=")),
            Not(HasSubstr("packet_sampler")), Not(HasSubstr("_seconds_bucket")),
            Not(HasSubstr("bpfgrant_pool"))));
}

// Root, with the capability to have runs counted.
Outcome RootWithAll(const Words& words) {
  const PrivateFolder folder;
  const std::string file = folder.path() / "output";
  std::string line = absl::StrCat("exec '", Tool(), "'");
  for (const std::string& word : words) absl::StrAppend(&line, " '", word, "'");
  Outcome outcome;
  const int status =
      std::system(absl::StrCat(line, " > ", file, " 2>&1").c_str());
  outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  std::ifstream in(file);
  outcome.output.assign(std::istreambuf_iterator<char>(in), {});
  return outcome;
}

TEST_F(MetricsTest, TopCountsWhileItLooks) {
  Connection connection = Connect();
  const Grant grant = Acquire(connection);
  const Outcome once =
      RootWithAll(WithSocket({"top", "--once", "--interval", "0.2"}));
  EXPECT_EQ(once.exit_code, 0) << once.output;
  const std::vector<std::string> lines = LinesOf(once.output);
  ASSERT_THAT(lines, SizeIs(::testing::Ge(5u))) << once.output;
  EXPECT_THAT(lines[0], HasSubstr("Runs are counted."));
  EXPECT_THAT(FieldsOf(lines[1]),
              ::testing::ElementsAre("PROGRAM", "INSTANCES", "RUNS/S",
                                     "TIME/RUN", "CPU", "MISSES/S"));
  EXPECT_THAT(once.output, AllOf(HasSubstr("\npacket_sampler  "),
                                 HasSubstr("0.0% samples")));
  for (const std::string& line : lines) EXPECT_LE(line.size(), 80u) << line;
  const Outcome json = RootWithAll(
      WithSocket({"top", "--count", "2", "--interval", "0.2", "--json"}));
  const std::vector<std::string> objects = LinesOf(json.output);
  ASSERT_THAT(objects, SizeIs(2)) << json.output;
  const auto rates = FromJson<v1::ActivityRates>(objects[1]);
  EXPECT_TRUE(rates.counting());
  EXPECT_GE(rates.seconds(), 0.15);
  ASSERT_EQ(rates.grant_size(), 1);
  EXPECT_EQ(rates.grant(0).grant(), grant.id());
  EXPECT_EQ(rates.grant(0).ring_buffer(0).size_bytes(), 256u * 1024);
}

TEST_F(MetricsTest, TopSaysWhenRunsAreNotCounted) {
  std::ifstream setting("/proc/sys/kernel/bpf_stats_enabled");
  int on = 0;
  setting >> on;
  // Root without capabilities cannot have them counted.
  const Outcome root = Root({"top", "--once", "--interval", "0.2"});
  EXPECT_TRUE(root.ok()) << root.Describe();
  EXPECT_THAT(root.output,
              HasSubstr(on == 1 ? "Runs are counted" : "Runs are NOT counted"));
  const Outcome nobody = Nobody({"top", "--once", "--json"});
  EXPECT_EQ(nobody.exit_code, kRefused) << nobody.Describe();
  EXPECT_EQ(RefusalIn(nobody.output), "REASON_NOT_ADMINISTRATOR");
  EXPECT_EQ(Root({"top", "--interval", "0"}).exit_code, kUsage);
  EXPECT_EQ(Root({"top", "--count", "0"}).exit_code, kUsage);
}

// A terminal of 80 columns and 10 rows is drawn on, and given back as it was.
TEST_F(MetricsTest, TopDrawsOnATerminal) {
  const UniqueFd master(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  ASSERT_TRUE(master.valid());
  ASSERT_EQ(grantpt(master.get()), 0);
  ASSERT_EQ(unlockpt(master.get()), 0);
  winsize size{};
  size.ws_row = 10;
  size.ws_col = 80;
  ASSERT_EQ(ioctl(master.get(), TIOCSWINSZ, &size), 0);
  char name[64];
  ASSERT_EQ(ptsname_r(master.get(), name, sizeof(name)), 0);
  const UniqueFd terminal(open(name, O_RDWR | O_NOCTTY | O_CLOEXEC));
  ASSERT_TRUE(terminal.valid());
  termios before{}, after{};
  ASSERT_EQ(tcgetattr(terminal.get(), &before), 0);
  UnprivilegedOptions options = AsRoot();
  options.environment = {"BPFGRANT_SOCKET=" + daemon().broker_socket()};
  options.fds = {{terminal.get(), 5}};
  auto top = UnprivilegedProcess::Spawn(
      "/bin/sh", {"-c", "exec \"$0\" top --interval 0.2 <&5 >&5", Tool()},
      options);
  ASSERT_TRUE(top.ok()) << top.status();
  std::string drawn;
  char buffer[4096];
  while (drawn.find("GRANT") == std::string::npos) {
    const ssize_t length = read(master.get(), buffer, sizeof(buffer));
    ASSERT_GT(length, 0) << drawn;
    drawn.append(buffer, static_cast<size_t>(length));
  }
  EXPECT_THAT(drawn, HasSubstr("\033[?1049h"));
  ASSERT_EQ(write(master.get(), "q", 1), 1);
  const Outcome outcome = top->Wait();
  EXPECT_TRUE(outcome.ok()) << outcome.Describe();
  while (drawn.find("\033[?1049l") == std::string::npos) {
    const ssize_t length = read(master.get(), buffer, sizeof(buffer));
    ASSERT_GT(length, 0) << drawn;
    drawn.append(buffer, static_cast<size_t>(length));
  }
  ASSERT_EQ(tcgetattr(terminal.get(), &after), 0);
  EXPECT_EQ(after.c_lflag, before.c_lflag);
}

}  // namespace
}  // namespace bpfgrant::test
