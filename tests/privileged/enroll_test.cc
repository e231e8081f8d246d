// Whom a program that is attached for the whole machine serves: the processes
// that hold its grants, as long as they do, and nobody else.

#include <csignal>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/harness/kernel_objects.h"
#include "tests/harness/process_tree.h"
#include "tests/harness/unprivileged.h"
#include "tests/privileged/client_fixture.h"

namespace bpfgrant::test {
namespace {

constexpr int kNop = 0;    // IORING_OP_NOP
constexpr int kLinks = 3;  // submission, completion, execve(2)

class EnrollTest : public ClientTest {
 protected:
  void StartWith(const std::vector<std::string>& without = {}) {
    DaemonOptions options;
    options.programs = {"io_latency"};
    options.without = without;
    Start(options);
  }
  Acquired Acquire(Nobody& client) {
    Connect(client);
    Acquired acquired = client.Acquire("io_latency any");
    EXPECT_EQ(acquired.delivery, "process");
    return acquired;
  }
  // The same after 5 of them, execve(2) with session and maps kept open, and
  // 100 more.
  uint64_t SeenAfterExec(Nobody& client) {
    Acquire(client);
    client.Do("nops 5");
    const std::string map = client.Word("exec-keeping 0");
    client.Do("nops 100");
    return client.Number(absl::StrCat("latencies-at ", map, " ", kNop), 1);
  }
  // The attachments that the loader keeps.
  int Links() {
    const std::string folder =
        absl::StrCat("/proc/", daemon().PidOf(Daemon::Process::kLoader), "/fd");
    int count = 0;
    for (const auto& fd : std::filesystem::directory_iterator(folder)) {
      std::error_code gone;
      count += std::filesystem::read_symlink(fd, gone) == "anon_inode:bpf_link";
    }
    return count;
  }
  // How many NOPs were completed, as the grant's maps have it.
  static uint64_t Seen(Nobody& client) {
    return client.Number(absl::StrCat("latencies 0 ", kNop), 1);
  }
};

TEST_F(EnrollTest, EachProcessSeesItsOwnRequestsAndNoOthers) {
  ASSERT_NO_FATAL_FAILURE(StartWith());
  Nobody one, other, stranger;
  Acquire(one);
  Acquire(other);
  one.Do("nops 30");
  other.Do("nops 7");
  stranger.Do("nops 100");
  EXPECT_EQ(Seen(one), 30u);
  EXPECT_EQ(Seen(other), 7u);
}

// A kernel that preempts within tracepoints (7.x) passes over the program for
// whoever comes to a processor on which another is inside it, and says how
// often: that is all that may be missing.
TEST_F(EnrollTest, EachProcessSeesItsOwnRequestsWhileOthersRun) {
  const auto before = ListKernelObjects();
  ASSERT_TRUE(before.ok()) << before.status();
  ASSERT_NO_FATAL_FAILURE(StartWith());
  Nobody one, other, stranger;
  Acquire(one);
  Acquire(other);
  for (Nobody* client : {&one, &other, &stranger}) client->Tell("nops 2000");
  for (Nobody* client : {&one, &other, &stranger}) {
    EXPECT_EQ(client->Answer(kPatience), "ok");
  }
  const auto after = ListKernelObjects();
  ASSERT_TRUE(after.ok()) << after.status();
  const uint64_t missed = MissedRuns(after->Without(*before).programs);
  for (Nobody* client : {&one, &other}) {
    const uint64_t seen = Seen(*client);
    EXPECT_LE(seen, 2000u);
    EXPECT_GE(seen + missed, 2000u) << missed << " runs were missed";
  }
}

TEST_F(EnrollTest, TakesNoFdAndGivesNoProgram) {
  ASSERT_NO_FATAL_FAILURE(StartWith());
  Nobody client;
  Connect(client);
  EXPECT_EQ(client.Ask("acquire io_latency any fd=0"),
            "refused unexpected-fds");
  EXPECT_EQ(client.Ask("acquire io_latency program"),
            "refused delivery-not-allowed");
  const Acquired acquired = client.Acquire("io_latency any");
  EXPECT_EQ(acquired.ids.count("program"), 0u);
  EXPECT_EQ(acquired.ids.size(), 3u);
}

TEST_F(EnrollTest, IsExplained) {
  ASSERT_NO_FATAL_FAILURE(StartWith());
  v1::ExplainRequest request;
  request.set_program("io_latency");
  const auto reply = administrator().Explain(request);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->delivery().find("PROCESS: attached once"), 0u)
      << reply->delivery();
}

TEST_F(EnrollTest, AForkedChildIsAnotherProcess) {
  ASSERT_NO_FATAL_FAILURE(StartWith());
  Nobody client;
  Acquire(client);
  client.Do("nops 5");
  client.Do("fork");
  client.Do("child nops 100");
  EXPECT_EQ(Seen(client), 5u);
  client.Do("nops 1");
  EXPECT_EQ(Seen(client), 6u);
}

// What it has become may be allowed more than it was.
TEST_F(EnrollTest, AnExecutedProgramIsNobody) {
  ASSERT_NO_FATAL_FAILURE(StartWith());
  Nobody client;
  EXPECT_EQ(SeenAfterExec(client), 5u);
}

TEST_F(EnrollTest, AnExecutedProgramIsSeenWithoutTheCheck) {
  ASSERT_NO_FATAL_FAILURE(StartWith({"exec_dismisses"}));
  Nobody client;
  EXPECT_EQ(SeenAfterExec(client), 105u);
}

TEST_F(EnrollTest, ARevokedGrantSeesNothingMore) {
  ASSERT_NO_FATAL_FAILURE(StartWith());
  Nobody client;
  const Acquired acquired = Acquire(client);
  client.Do("nops 5");
  EXPECT_EQ(RevokeGrant(acquired.grant), 1u);
  client.Do("nops 100");
  EXPECT_EQ(Seen(client), 5u);
}

TEST_F(EnrollTest, ARevokedGrantGoesOnWithoutTheGate) {
  ASSERT_NO_FATAL_FAILURE(StartWith({"gate_closes"}));
  Nobody client;
  const Acquired acquired = Acquire(client);
  client.Do("nops 5");
  EXPECT_EQ(RevokeGrant(acquired.grant), 1u);
  client.Do("nops 100");
  EXPECT_EQ(Seen(client), 105u);
}

TEST_F(EnrollTest, AReloadThatWithdrawsItEndsIt) {
  ASSERT_NO_FATAL_FAILURE(StartWith());
  Nobody client;
  Acquire(client);
  client.Do("nops 5");
  daemon().RemoveCatalogEntry("io_latency");
  ASSERT_TRUE(daemon().Reload().ok());
  client.Do("nops 100");
  EXPECT_EQ(Seen(client), 5u);
}

TEST_F(EnrollTest, TheHistogramIsForReading) {
  ASSERT_NO_FATAL_FAILURE(StartWith());
  Nobody client;
  Acquire(client);
  EXPECT_EQ(client.Ask("map 0 latencies lookup"), "ok");
  EXPECT_EQ(client.Ask("map 0 latencies update"), "error EPERM");
  EXPECT_EQ(client.Ask("map 0 settings update"), "ok");
}

TEST_F(EnrollTest, TheHistogramIsForWritingWithoutNarrowing) {
  ASSERT_NO_FATAL_FAILURE(StartWith({"narrowed_handles"}));
  Nobody client;
  Acquire(client);
  EXPECT_EQ(client.Ask("map 0 latencies update"), "ok");
}

TEST_F(EnrollTest, AProcessIsServedOnce) {
  ASSERT_NO_FATAL_FAILURE(StartWith());
  Nobody client;
  Acquire(client);
  EXPECT_EQ(client.Ask("acquire io_latency any"), "refused process-enrolled");
  client.Do("nops 5");
  EXPECT_EQ(Seen(client), 5u);
  client.Do("release 0");
  client.Acquire("io_latency any");
  client.Do("nops 3");
  EXPECT_EQ(client.Number(absl::StrCat("latencies 1 ", kNop), 1), 3u);
}

TEST_F(EnrollTest, NothingIsLeftOfADeadProcess) {
  ASSERT_NO_FATAL_FAILURE(StartWith());
  const Resting before = Rest();
  for (int i = 0; i < 3; ++i) {
    Nobody client;
    const Acquired acquired = Acquire(client);
    client.Do("nops 5");
    client.KillAndReap();
    ExpectGone(acquired.objects());
  }
  ExpectRestsAs(before);
}

TEST_F(EnrollTest, TheProgramIsOnItsTracepointsOnlyWhileItServes) {
  ASSERT_NO_FATAL_FAILURE(StartWith());
  // Those of the loader's own iterators stay.
  const int before = Links();
  Nobody client, other;
  Acquire(client);
  EXPECT_EQ(Links() - before, kLinks);
  Acquire(other);
  EXPECT_EQ(Links() - before, kLinks);
  client.Do("release 0");
  other.Do("nops 5");
  EXPECT_EQ(Seen(other), 5u);
  EXPECT_EQ(Links() - before, kLinks);
  other.Do("release 0");
  EXPECT_TRUE(WaitUntil([&] { return Links() == before; }, kPatience));
}

TEST_F(EnrollTest, TheExampleTimesItsReads) {
  ASSERT_NO_FATAL_FAILURE(StartWith());
  const Outcome outcome = RunUnprivileged(
      LATENCIES_PATH,
      {"--socket", daemon().broker_socket(), "--blocks", "200"});
  EXPECT_TRUE(outcome.ok()) << outcome.Describe();
  // IORING_OP_READ
  EXPECT_NE(outcome.output.find("opcode 22: 200 requests, 200 timed, p50 "),
            std::string::npos)
      << outcome.Describe();
}

TEST_F(EnrollTest, EndsWithTheDaemon) {
  ASSERT_NO_FATAL_FAILURE(StartWith());
  Nobody client;
  Acquire(client);
  client.Do("nops 5");
  daemon().Kill(Daemon::Process::kLoader, SIGKILL);
  EXPECT_NE(daemon().WaitForEnd(kPatience), -1);
  client.Do("nops 100");
  EXPECT_EQ(Seen(client), 5u);
}

}  // namespace
}  // namespace bpfgrant::test
