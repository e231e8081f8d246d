// What the daemon needs to start, and what it refuses to start with.

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/private_folder.h"
#include "tests/harness/process_tree.h"
#include "tests/harness/unprivileged.h"
#include "tests/privileged/client_fixture.h"
#include "tests/privileged/daemon_process.h"

namespace bpfgrant::test {
namespace {

using ::testing::HasSubstr;

class StartupTest : public ClientTest {
 protected:
  std::string Config() const { return folder_.path() / "empty.conf"; }
  // What a daemon by hand needs: an empty catalog and no policy.
  DaemonProcess::Options Empty() const {
    return {Config(),
            folder_.path() / "runtime",
            folder_.path() / "catalog",
            folder_.path() / "policy",
            {},
            {}};
  }
  void SetUp() override {
    ClientTest::SetUp();
    for (const char* name : {"runtime", "catalog", "policy"}) {
      ASSERT_TRUE(std::filesystem::create_directory(folder_.path() / name));
    }
    std::ofstream(Config()) << "";
  }
  // A daemon on the same runtime directory as the fixture's.
  DaemonProcess::Options Second() {
    return {Config(),
            daemon().runtime_directory(),
            daemon().catalog_directory(),
            daemon().policy_directory(),
            {},
            {}};
  }
  UniqueFd Listen(const std::string& name, int type) {
    UniqueFd socket(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string path = folder_.path() / name;
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    EXPECT_EQ(bind(socket.get(), reinterpret_cast<sockaddr*>(&address),
                   sizeof(address)),
              0);
    EXPECT_EQ(listen(socket.get(), 16), 0);
    EXPECT_EQ(chmod(path.c_str(), 0666), 0);
    return socket;
  }
  // Who answers there; 0 when nobody does, as between two daemons.
  uint32_t BrokerBehind(const std::string& path) {
    auto connection = Connection::Connect({.path = path, .timeout = kPatience});
    if (!connection.ok()) return 0;
    const auto status = connection->Status();
    return status.ok() ? status->broker_pid() : 0;
  }
  void ExpectRefused(const DaemonProcess::Options& options,
                     const std::string& why) {
    DaemonProcess daemon(options);
    EXPECT_EQ(daemon.WaitForExit(kPatience), 1);
    EXPECT_THAT(daemon.Log(), HasSubstr(why));
  }

  PrivateFolder folder_{"/run/"};
};

TEST_F(StartupTest, OneDaemonForARuntimeDirectory) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  Connect(client);
  client.Do("udp");
  client.Acquire("packet_sampler program");
  client.Do("attach 0 0");
  ExpectRefused(Second(), "another bpfgrantd runs here");
  EXPECT_EQ(client.Ask("traffic 0 10 0"), "ok 10 10");
  EXPECT_EQ(BrokerBehind(daemon().broker_socket()), Status().broker_pid());
  Nobody another;
  Connect(another);
  another.Acquire("packet_sampler program");
}

TEST_F(StartupTest, ASecondDaemonTakesTheSocketsWithoutTheLock) {
  ASSERT_NO_FATAL_FAILURE(StartWithout({"runtime_directory_lock"}));
  DaemonProcess::Options options = Second();
  options.without = {"runtime_directory_lock"};
  const DaemonProcess second(options);
  EXPECT_TRUE(WaitUntil(
      [&] {
        return BrokerBehind(daemon().broker_socket()) ==
               static_cast<uint32_t>(second.pid());
      },
      kPatience))
      << second.Log();
}

TEST_F(StartupTest, NeedsRoot) {
  const Outcome outcome = RunUnprivileged(
      DAEMON_PATH, {"--config", Config(), "--runtime-dir",
                    folder_.path() / "runtime", "--user", "64999"});
  EXPECT_EQ(outcome.exit_code, 1) << outcome.Describe();
  EXPECT_THAT(outcome.errors + outcome.output,
              HasSubstr("must be started as root"));
}

TEST_F(StartupTest, RuntimeDirectoryMustBeRootsAlone) {
  const std::string runtime = folder_.path() / "runtime";
  for (const mode_t mode : {0777, 0775, 01777}) {
    ASSERT_EQ(chmod(runtime.c_str(), mode), 0);
    ExpectRefused(Empty(), "writable by nobody else");
  }
  ASSERT_EQ(chmod(runtime.c_str(), 0755), 0);
  ASSERT_EQ(chown(runtime.c_str(), kNobody, kNobody), 0);
  ExpectRefused(Empty(), "must be root's");
  ASSERT_EQ(chown(runtime.c_str(), 0, 0), 0);
  // A link to a good one is none.
  const std::string link = folder_.path() / "link";
  ASSERT_EQ(symlink(runtime.c_str(), link.c_str()), 0);
  DaemonProcess::Options options = Empty();
  options.runtime_directory = link;
  ExpectRefused(options, link);
}

TEST_F(StartupTest, ABrokenPolicyIsRefusedWithItsPlace) {
  std::ofstream(folder_.path() / "policy" / "a.policy")
      << "rule {\n  name: \"r\"\n  effect: PERHAPS\n}\n";
  DaemonProcess daemon(Empty());
  EXPECT_EQ(daemon.WaitForExit(kPatience), 1);
  EXPECT_THAT(daemon.Log(), HasSubstr("a.policy:3:"));
}

TEST_F(StartupTest, AdoptsBothSockets) {
  const UniqueFd broker = Listen("passed.broker", SOCK_SEQPACKET);
  const UniqueFd control = Listen("passed.control", SOCK_STREAM);
  DaemonProcess::Options options = Empty();
  // In either order: they are told apart by their types.
  options.passed = {control.get(), broker.get()};
  const DaemonProcess daemon(options);
  EXPECT_EQ(BrokerBehind(folder_.path() / "passed.broker"),
            static_cast<uint32_t>(daemon.pid()))
      << daemon.Log();
  // It bound none of its own.
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path() / "runtime"));
}

TEST_F(StartupTest, AdoptsOneSocketOnlyNever) {
  const UniqueFd broker = Listen("passed.broker", SOCK_SEQPACKET);
  DaemonProcess::Options options = Empty();
  options.passed = {broker.get()};
  ExpectRefused(options, "the service manager passed one socket");
  const UniqueFd datagrams = Listen("passed.control", SOCK_STREAM);
  options.passed = {datagrams.get()};
  ExpectRefused(options, "the service manager passed one socket");
}

TEST_F(StartupTest, AdoptsNothingElse) {
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
  const UniqueFd one(pair[0]), other(pair[1]);
  DaemonProcess::Options options = Empty();
  options.passed = {one.get(), other.get()};
  ExpectRefused(options, "fd 3 from the service manager");
}

}  // namespace
}  // namespace bpfgrant::test
