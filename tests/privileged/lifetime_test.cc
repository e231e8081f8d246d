// Grants end with their session, and sessions with their process, wherever it
// stops; and a session is of no use to anybody else.

#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/harness/process_tree.h"
#include "tests/privileged/client_fixture.h"

namespace bpfgrant::test {
namespace {

using Process = Daemon::Process;

class DeathTest : public ClientTest {
 protected:
  // Kills a client after it has done `commands` without the library, and
  // expects that nothing of it is left: neither fds nor gates nor the instances
  // that left the pool for it, so many as `taken`.
  void DieAfter(const std::vector<std::string>& commands, size_t taken) {
    ASSERT_NO_FATAL_FAILURE(Start());
    const Resting before = Rest();
    const KernelObjects pool = HeldBy(daemon().PidOf(Process::kBroker));
    Nobody client;
    client.Do("udp");
    client.Do("raw-connect " + daemon().broker_socket());
    for (const std::string& command : commands) client.Do(command);
    client.KillAndReap();
    ExpectRestsAs(before);
    const KernelObjects gone =
        pool.Without(HeldBy(daemon().PidOf(Process::kBroker)));
    EXPECT_EQ(gone.programs.size(), taken) << gone.Describe();
    ExpectGone(gone);
    EXPECT_EQ(Status().grants(), 0u);
  }
};

TEST_F(DeathTest, AfterConnecting) { DieAfter({}, 0); }

TEST_F(DeathTest, AfterHello) { DieAfter({"raw-hello"}, 0); }

TEST_F(DeathTest, AfterHelloWasAnswered) {
  DieAfter({"raw-hello", "raw-receive"}, 0);
}

// The request is answered, or its sender is seen to be gone first: either way
// an instance may have been taken for it.
TEST_F(DeathTest, WithTheReplyUnread) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const Resting before = Rest();
  const KernelObjects pool = HeldBy(daemon().PidOf(Process::kBroker));
  Nobody client;
  client.Do("raw-connect " + daemon().broker_socket());
  client.Do("raw-hello");
  client.Do("raw-receive");
  client.Do("raw-acquire packet_sampler");
  ASSERT_TRUE(WaitUntil([&] { return Status().grants() == 1; }, kPatience));
  client.KillAndReap();
  ExpectRestsAs(before);
  const KernelObjects gone =
      pool.Without(HeldBy(daemon().PidOf(Process::kBroker)));
  EXPECT_EQ(gone.programs.size(), 1u) << gone.Describe();
  ExpectGone(gone);
}

TEST_F(DeathTest, WithAllFdsInHand) {
  DieAfter(
      {"raw-hello", "raw-receive", "raw-acquire packet_sampler", "raw-receive"},
      1);
}

// At every moment of an attachment that a kill can hit: it is killed a little
// later each time.
TEST_F(DeathTest, DuringAnAttachment) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const Resting before = Rest();
  for (int delay_us = 0; delay_us <= 4000; delay_us += 250) {
    Nobody client;
    client.Do("udp");
    client.Do("raw-connect " + daemon().broker_socket());
    client.Do("raw-hello");
    client.Do("raw-receive");
    client.Tell("raw-acquire packet_sampler 0");
    usleep(static_cast<useconds_t>(delay_us));
    client.KillAndReap();
  }
  ExpectRestsAs(before);
  EXPECT_EQ(Status().grants(), 0u);
}

TEST_F(DeathTest, WithTheLibrary) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const Resting before = Rest();
  Nobody client;
  Connect(client);
  client.Do("udp");
  const Acquired program = client.Acquire("packet_sampler program");
  const Acquired attached = client.Acquire("packet_sampler attach socket=0");
  EXPECT_EQ(client.Ask("traffic 0 10 1"), "ok 10 10");
  client.KillAndReap();
  ExpectRestsAs(before);
  ExpectGone(program.objects());
  ExpectGone(attached.objects());
}

class SessionTest : public ClientTest {
 protected:
  // A pair of sockets that two clients have as their fd 5.
  void MakePair(UniqueFd& one, UniqueFd& other) {
    int pair[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    one.reset(pair[0]);
    other.reset(pair[1]);
  }
  static UnprivilegedOptions WithFd(const UniqueFd& fd) {
    UnprivilegedOptions options = Nobody::Options();
    options.fds = {{fd.get(), 5}};
    return options;
  }

  // What becomes of a call by a process that was handed the session's socket.
  std::string CallByAnother() {
    UniqueFd one, other;
    MakePair(one, other);
    Nobody owner(WithFd(one)), stranger(WithFd(other));
    Connect(owner);
    acquired_ = owner.Acquire("packet_sampler program");
    probe_.emplace(acquired_);
    EXPECT_TRUE(probe_->Runs());
    owner.Do("raw-take-over");
    owner.Do("raw-give 5");
    stranger.Do("raw-take 5");
    const std::string answer = stranger.Ask("raw-status");
    runs_ = probe_->Runs();
    return answer;
  }
  std::string CallByFork() {
    Nobody owner;
    Connect(owner);
    acquired_ = owner.Acquire("packet_sampler program");
    probe_.emplace(acquired_);
    owner.Do("raw-take-over");
    owner.Do("fork");
    const std::string answer = owner.Ask("child raw-status");
    runs_ = probe_->Runs();
    return answer;
  }

  Acquired acquired_;
  std::optional<SamplerProbe> probe_;
  bool runs_ = false;  // after that call
};

TEST_F(SessionTest, IsNoUseToAnotherProcess) {
  ASSERT_NO_FATAL_FAILURE(Start());
  EXPECT_EQ(CallByAnother(), "closed");
  EXPECT_FALSE(runs_);
  EXPECT_EQ(Status().sessions(), 1u);
}

TEST_F(SessionTest, IsOfUseToAnotherProcessWithoutTheCheck) {
  ASSERT_NO_FATAL_FAILURE(StartWithout({"sender_check"}));
  EXPECT_NE(CallByAnother(), "closed");
  EXPECT_TRUE(runs_);
}

TEST_F(SessionTest, IsNoUseToAFork) {
  ASSERT_NO_FATAL_FAILURE(Start());
  EXPECT_EQ(CallByFork(), "closed");
  EXPECT_FALSE(runs_);
}

TEST_F(SessionTest, IsOfUseToAForkWithoutTheCheck) {
  ASSERT_NO_FATAL_FAILURE(StartWithout({"sender_check"}));
  EXPECT_NE(CallByFork(), "closed");
  EXPECT_TRUE(runs_);
}

// A fork that keeps the socket open does not keep the session: it is the
// process that connected whose end counts.
TEST_F(SessionTest, EndsWithTheProcessThatConnected) {
  ASSERT_NO_FATAL_FAILURE(Start());
  pid_t child = -1;
  {
    Nobody owner;
    Connect(owner);
    acquired_ = owner.Acquire("packet_sampler program");
    probe_.emplace(acquired_);
    child = static_cast<pid_t>(owner.Number("fork stay"));
    EXPECT_TRUE(probe_->Runs());
    owner.KillAndReap();
  }
  EXPECT_TRUE(WaitUntil([&] { return !probe_->Runs(); }, kPatience));
  EXPECT_TRUE(WaitUntil([&] { return Status().sessions() == 1; }, kPatience));
  // It has the fds, which nobody can take from it, and nothing else.
  EXPECT_TRUE(IsRunning(child));
  EXPECT_TRUE(HeldBy(child).programs.contains(acquired_.program()));
  probe_.reset();
  kill(child, SIGKILL);
  ExpectGone(acquired_.objects());
}

TEST_F(SessionTest, StaysWithAProcessThatExecutesAnother) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  Connect(client);
  acquired_ = client.Acquire("packet_sampler program");
  client.Do("raw-take-over");
  EXPECT_EQ(client.Ask("exec"), "ok");
  EXPECT_EQ(client.Word("raw-status"), "14");
  // The grant's fds were closed by the exec, and what they stood for is gone.
  ExpectGone(acquired_.objects());
  client.KillAndReap();
  EXPECT_TRUE(WaitUntil([&] { return Status().grants() == 0; }, kPatience));
}

// Connects as root, lives on as nobody, and calls. Not a client as the others
// are: it begins with privilege, which is the point. The exit status says what
// it saw: 0 when its session was ended.
int CallAfterSetuid(const std::string& path) {
  auto connection = Connection::Connect({.path = path});
  if (!connection.ok() || !connection->session().administrator()) return 2;
  if (setresgid(kNobody, kNobody, kNobody) < 0 ||
      setresuid(kNobody, kNobody, kNobody) < 0) {
    return 3;
  }
  v1::RevokeRequest request;
  request.set_all(true);
  const auto reply = connection->Revoke(request);
  return absl::IsUnavailable(reply.status()) ? 0 : 4;
}

TEST_F(SessionTest, IsNotKeptThroughAChangeOfUser) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  Connect(client);
  client.Acquire("packet_sampler program");
  const std::string path = daemon().broker_socket();
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) _exit(CallAfterSetuid(path));
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(Status().grants(), 1u);
}

}  // namespace
}  // namespace bpfgrant::test
