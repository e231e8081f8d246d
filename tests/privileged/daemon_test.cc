// The two processes: what each may do, how they end, and how they reload.

#include <sys/wait.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/refusal/refusal.h"
#include "tests/harness/kernel_features.h"
#include "tests/harness/process_tree.h"
#include "tests/privileged/client_fixture.h"

namespace bpfgrant::test {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Process = Daemon::Process;

// A client with a sampler at work on its socket.
class DaemonProcessesTest : public ClientTest {
 protected:
  void StartWithClient() {
    ASSERT_NO_FATAL_FAILURE(Start());
    client_.emplace();
    Connect(*client_);
    client_->Do("udp");
    acquired_ = client_->Acquire("packet_sampler program");
    client_->Do("attach 0 0");
    EXPECT_EQ(client_->Ask("traffic 0 10 0"), "ok 10 10");
    runtime_ = daemon().runtime_directory();
  }
  // That the client was told of the end, and its program is dead.
  void ExpectClosed(const std::string& reason) {
    EXPECT_EQ(
        client_->Ask("event 20000"),
        absl::StrCat("ok TYPE_GRANT_ENDED ", acquired_.grant, " ", reason));
    EXPECT_EQ(client_->Ask("traffic 0 10 0"), "ok 10 0");
  }
  bool SocketsAreGone() const {
    return !std::filesystem::exists(runtime_ / "broker.sock") &&
           !std::filesystem::exists(runtime_ / "control.sock");
  }
  std::string StatusFile(Process process) {
    std::ifstream file(
        absl::StrCat("/proc/", daemon().PidOf(process), "/status"));
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
  }

  std::optional<Nobody> client_;
  Acquired acquired_;
  std::filesystem::path runtime_;
};

TEST_F(DaemonProcessesTest, TheBrokerHasNoPrivilege) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const std::string status = StatusFile(Process::kBroker);
  for (const char* line :
       {"Uid:\t64999\t64999\t64999\t64999", "Gid:\t64999\t64999\t64999\t64999",
        "Groups:\t \n", "CapInh:\t0000000000000000",
        "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1", "Seccomp:\t2"}) {
    EXPECT_THAT(status, HasSubstr(line));
  }
}

TEST_F(DaemonProcessesTest, TheLoaderHasThreeCapabilitiesAndOneMoreForLoops) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const std::string status = StatusFile(Process::kLoader);
  // CAP_PERFMON is 38, CAP_BPF 39; CAP_KILL is 5, CAP_SYS_PTRACE 19.
  const std::string kept =
      KernelHasLoops() ? "000000c000080020" : "000000c000080000";
  for (const std::string& line :
       {std::string("CapInh:\t0000000000000000"), "CapPrm:\t" + kept,
        "CapEff:\t" + kept, std::string("CapBnd:\t0000000000000000"),
        std::string("CapAmb:\t0000000000000000"), std::string("NoNewPrivs:\t1"),
        std::string("Seccomp:\t2")}) {
    EXPECT_THAT(status, HasSubstr(line));
  }
}

TEST_F(DaemonProcessesTest, AskedToStopItClosesEveryGate) {
  ASSERT_NO_FATAL_FAILURE(StartWithClient());
  const absl::Status stopped = daemon().Stop();
  EXPECT_TRUE(stopped.ok()) << stopped;
  ExpectClosed("daemon-stopped");
  EXPECT_TRUE(SocketsAreGone());
}

TEST_F(DaemonProcessesTest, WithoutItsLoaderTheBrokerEnds) {
  ASSERT_NO_FATAL_FAILURE(StartWithClient());
  daemon().Kill(Process::kLoader, SIGKILL);
  const int status = daemon().WaitForEnd(kPatience);
  ASSERT_TRUE(WIFEXITED(status)) << status;
  EXPECT_NE(WEXITSTATUS(status), 0);
  ExpectClosed("daemon-stopped");
}

TEST_F(DaemonProcessesTest, WithoutItsBrokerTheLoaderEnds) {
  ASSERT_NO_FATAL_FAILURE(StartWithClient());
  const pid_t loader = daemon().PidOf(Process::kLoader);
  daemon().Kill(Process::kBroker, SIGKILL);
  daemon().WaitForEnd(kPatience);
  EXPECT_TRUE(WaitUntil([&] { return !IsRunning(loader); }, kPatience));
  EXPECT_EQ(client_->Ask("traffic 0 10 0"), "ok 10 0");
  EXPECT_EQ(client_->Ask("ended 0"), "ok session-ended");
  EXPECT_TRUE(SocketsAreGone());
}

TEST_F(DaemonProcessesTest, ABrokenPolicyLeavesTheOldInForce) {
  ASSERT_NO_FATAL_FAILURE(StartWithClient());
  EXPECT_EQ(Status().last_reload(), "ok");
  daemon().WritePolicy("rule {\n  name: \"none\"\n  effect: NEVER\n}\n");
  daemon().RemoveCatalogEntry("reuseport_steer");
  const absl::Status reloaded = daemon().Reload();
  ASSERT_TRUE(reloaded.ok()) << reloaded;
  EXPECT_THAT(daemon().Log(), HasSubstr("test.policy:3:11"));
  const v1::StatusReply status = Status();
  EXPECT_THAT(status.last_reload(), HasSubstr("test.policy:3:11"));
  EXPECT_EQ(status.rules(), 1u);
  EXPECT_EQ(status.programs(), 2u);
  EXPECT_EQ(client_->Ask("ended 0"), "ok live");
  client_->Acquire("packet_sampler program");
  // By request it is refused with the same words.
  const auto reply = administrator().Reload();
  EXPECT_EQ(ReasonOf(reply.status()), v1::REASON_RELOAD_REJECTED);
  EXPECT_THAT(reply.status().ToString(), HasSubstr("test.policy:3:11"));
}

TEST_F(DaemonProcessesTest, AWithdrawnProgramEndsItsGrants) {
  ASSERT_NO_FATAL_FAILURE(StartWithClient());
  client_->Acquire("reuseport_steer program");
  daemon().RemoveCatalogEntry("packet_sampler");
  const auto reply = administrator().Reload();
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->revoked(), 1u);
  EXPECT_EQ(reply->programs(), 1u);
  ExpectClosed("withdrawn");
  EXPECT_EQ(client_->Ask("acquire packet_sampler program"),
            "refused unknown-program");
  EXPECT_EQ(client_->Ask("ended 1"), "ok live");
}

TEST_F(DaemonProcessesTest, APolicyThatForbidsEndsGrantsOnceEnforced) {
  ASSERT_NO_FATAL_FAILURE(StartWithClient());
  daemon().WritePolicy(
      "rule { name: \"not-nobody\" effect: DENY user: \"65534\" "
      "program: \"packet_sampler\" }",
      "deny.policy");
  ASSERT_TRUE(daemon().Reload().ok());
  EXPECT_EQ(client_->Ask("traffic 0 10 0"), "ok 10 10");
  const auto told = administrator().Reload();
  ASSERT_TRUE(told.ok()) << told.status();
  EXPECT_EQ(told->revoked(), 0u);
  ASSERT_EQ(told->not_allowed_size(), 1);
  EXPECT_EQ(told->not_allowed(0).grant(), acquired_.grant);
  const auto reply = administrator().Reload(/*enforce=*/true);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->revoked(), 1u);
  ExpectClosed("policy-changed");
  EXPECT_EQ(client_->Ask("acquire packet_sampler program"),
            "refused denied-by-rule");
}

TEST_F(DaemonProcessesTest, ABrokenEntryHarmsNoOther) {
  ASSERT_NO_FATAL_FAILURE(StartWithClient());
  daemon().AddCatalogEntry("broken", "name: \"broken\"\nrubbish\n");
  const auto reply = administrator().Reload();
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->programs(), 2u);
  ASSERT_EQ(reply->unavailable_size(), 1);
  EXPECT_THAT(reply->unavailable(0), HasSubstr("broken.manifest:2:"));
  EXPECT_EQ(reply->revoked(), 0u);
  EXPECT_EQ(Status().unavailable(), 1u);
  const auto described = administrator().Describe("broken");
  ASSERT_TRUE(described.ok()) << described.status();
  EXPECT_FALSE(described->summary().available());
  EXPECT_THAT(described->refusal(), HasSubstr("broken.manifest:2:"));
  EXPECT_EQ(client_->Ask("acquire broken program"),
            "refused program-unavailable");
  client_->Acquire("packet_sampler program");
  EXPECT_EQ(client_->Ask("traffic 0 10 0"), "ok 10 10");
}

// Nothing is handed out any more; what was handed out was the approved object.
TEST_F(DaemonProcessesTest, AnotherObjectIsNotApproved) {
  ASSERT_NO_FATAL_FAILURE(StartWithClient());
  std::ofstream(daemon().catalog_directory() / "packet_sampler.bpf.o",
                std::ios::binary | std::ios::app)
      << 'x';
  const auto reply = administrator().Reload();
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->programs(), 1u);
  EXPECT_EQ(client_->Ask("acquire packet_sampler program"),
            "refused program-unavailable");
}

TEST_F(DaemonProcessesTest, StatusNamesWhatIsOff) {
  ASSERT_NO_FATAL_FAILURE(Start());
  EXPECT_THAT(Status().mitigations_off(), IsEmpty());
}

}  // namespace
}  // namespace bpfgrant::test
