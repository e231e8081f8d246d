// A real daemon for a test: its own runtime directory, catalog and policy, its
// two processes, and its log when the test fails. Needs root.

#ifndef TESTS_HARNESS_DAEMON_FIXTURE_H_
#define TESTS_HARNESS_DAEMON_FIXTURE_H_

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "proto/wire/unique_fd.h"
#include "tests/harness/notify_socket.h"

namespace bpfgrant::test {

inline constexpr uid_t kBrokerUser = 64999;  // and its gid

struct DaemonOptions {
  // Text of the policy's one file. Empty: everything is denied.
  std::string policy;
  // Text of the configuration file; command-line options override it.
  std::string config;
  // Whether the catalog begins as the one that the build made, or empty.
  bool build_catalog = true;
  // Of the build's programs these alone; empty: all. To load what a test does
  // not use takes seconds in an emulated machine.
  std::vector<std::string> programs;
  // Names of daemon/mitigations.h. With any, the weakened daemon is started.
  std::vector<std::string> without;
  std::vector<std::string> arguments;    // besides the fixture's own
  std::vector<std::string> environment;  // "NAME=value"; besides the test's own
  // Capabilities that it is started without: CAP_BPF and so on.
  std::vector<int> without_capabilities;
  std::chrono::milliseconds start_timeout{20'000};
};

// What tests put there that are about the daemon and not about a program.
inline const std::vector<std::string> kTwoPrograms = {"packet_sampler",
                                                      "reuseport_steer"};

// Text of a configuration by which no instance is loaded before it is wanted.
inline constexpr char kNothingAhead[] = "limits { pool_bytes: 1 }";

// Allows everyone every program, with a large quota.
inline constexpr char kAllowAll[] = R"(
rule {
  name: "all"
  effect: ALLOW
  everyone: true
  program: "*"
  quota { grants: 4096 }
  trusted: true
}
)";

class Daemon {
 public:
  enum class Process { kBroker, kLoader };

  // Starts the daemon and waits until it is ready.
  //
  // kInternal: it ended or was not ready in time; the message has its log.
  static absl::StatusOr<std::unique_ptr<Daemon>> Start(
      const DaemonOptions& options);

  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;
  // Kills what still runs, prints the log if the test has failed by now, and
  // removes the folder.
  ~Daemon();

  std::string broker_socket() const { return runtime_ / "broker.sock"; }
  std::string control_socket() const { return runtime_ / "control.sock"; }
  const std::filesystem::path& runtime_directory() const { return runtime_; }
  const std::filesystem::path& catalog_directory() const { return catalog_; }
  const std::filesystem::path& policy_directory() const { return policy_; }
  // All that the daemon has written so far.
  std::string Log() const;

  // The files of the administrator, as root would write them; a Reload makes
  // them count. They fail the test if they cannot be written.
  void WritePolicy(const std::string& text,
                   const std::string& file = "test.policy");
  // The admission limits; without this there are those built in.
  void WriteAdmission(const std::string& text);
  // Writes NAME.manifest, and NAME.bpf.o as a copy of the file `object`, if one
  // is named.
  void AddCatalogEntry(const std::string& name, const std::string& manifest,
                       const std::filesystem::path& object = {});
  void RemoveCatalogEntry(const std::string& name);

  // SIGHUP, and waits until the daemon says that it is ready again: then
  // catalog and policy count, or were rejected (the log says).
  // kDeadlineExceeded: it did not say so.
  absl::Status Reload(
      std::chrono::milliseconds timeout = std::chrono::milliseconds(20'000));

  // Waits until the daemon says `line` to its service manager; what it has said
  // before it is forgotten. kDeadlineExceeded: it did not. kInternal: it ended.
  absl::Status WaitForNotice(const std::string& line,
                             std::chrono::milliseconds timeout);
  // Forgets what the daemon has said to its service manager.
  void ForgetNotices() { notices_.Drain(); }

  // -1 if there is none (any more).
  pid_t PidOf(Process process) const;
  void Kill(Process process, int signal);

  // SIGTERM, and waits for the end of both processes.
  // kInternal: another exit status than 0. kDeadlineExceeded: still running; it
  // is killed.
  absl::Status Stop(
      std::chrono::milliseconds timeout = std::chrono::milliseconds(15'000));
  // Waits for the end of the broker, without asking for it, and returns what
  // waitpid(2) said; -1 if it goes on.
  int WaitForEnd(std::chrono::milliseconds timeout);
  // Whether the broker has been started and not waited for.
  bool running() const { return broker_ > 0; }

 private:
  explicit Daemon(std::filesystem::path folder);

  absl::Status Prepare(const DaemonOptions& options);
  absl::Status Launch(const DaemonOptions& options);
  void KillAll();

  const std::filesystem::path folder_, runtime_, catalog_, policy_, admission_;
  NotifySocket notices_;
  UniqueFd guard_alive_;
  pid_t broker_ = -1;  // the process that was started
  pid_t loader_ = -1;
  pid_t guard_ = -1;
};

// A test that has one daemon. Skips without root's capabilities.
class DaemonTest : public ::testing::Test {
 protected:
  void SetUp() override;
  // Stops the daemon and expects that it ends well, unless the test has stopped
  // or killed it.
  void TearDown() override;

  // Starts it; a failure ends the test: use as ASSERT_TRUE(StartDaemon(...)).
  ::testing::AssertionResult StartDaemon(const DaemonOptions& options);
  Daemon& daemon() { return *daemon_; }

 private:
  std::unique_ptr<Daemon> daemon_;
};

}  // namespace bpfgrant::test

#endif  // TESTS_HARNESS_DAEMON_FIXTURE_H_
