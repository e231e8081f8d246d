#include "tests/e2e/private_bus.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/harness/daemon_fixture.h"
#include "tests/harness/process_tree.h"

namespace bpfgrant::test {
namespace {

namespace fs = std::filesystem;

constexpr char kBusDaemon[] = "/usr/bin/dbus-daemon";
constexpr char kPolkitd[] = "/usr/lib/polkit-1/polkitd";
constexpr char kPolkitBusConf[] =
    "/usr/share/dbus-1/system.d/org.freedesktop.PolicyKit1.conf";
constexpr std::chrono::seconds kPatience{20};

// As /usr/share/dbus-1/system.conf has it, but for who it runs as and what it
// may start.
constexpr char kBusConf[] = R"(<!DOCTYPE busconfig PUBLIC
 "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <auth>EXTERNAL</auth>
  <listen>ADDRESS</listen>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
  </policy>
  <policy user="root">
    <allow own="org.freedesktop.systemd1"/>
    <allow send_destination="org.freedesktop.DBus"
           send_interface="org.freedesktop.DBus.Monitoring"/>
  </policy>
  <policy context="default">
    <allow send_destination="org.freedesktop.systemd1"/>
  </policy>
  <include>PACKAGING/dbus/org.bpfgrant1.conf</include>
  <include ignore_missing="yes">POLKIT</include>
</busconfig>
)";

std::string ReadAll(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

void WriteFile(const fs::path& path, const std::string& text) {
  std::ofstream(path) << text;
  chmod(path.c_str(), 0644);
}

pid_t Spawn(const std::vector<std::string>& words, const fs::path& log,
            const std::function<bool()>& prepare) {
  std::vector<char*> arguments;
  for (const std::string& word : words) {
    arguments.push_back(const_cast<char*>(word.c_str()));
  }
  arguments.push_back(nullptr);
  const pid_t child = fork();
  if (child != 0) return child;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int file = open(log.c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600);
  dup2(file, STDOUT_FILENO);
  dup2(file, STDERR_FILENO);
  if (prepare()) execv(arguments[0], arguments.data());
  _exit(127);
}

void End(pid_t& process) {
  if (process < 0) return;
  kill(process, SIGKILL);
  waitpid(process, nullptr, 0);
  process = -1;
}

// Puts `file`, or folder, in the place of `over` for the calling process alone.
bool Cover(const fs::path& file, const char* over) {
  return mount(file.c_str(), over, nullptr, MS_BIND, nullptr) == 0;
}

}  // namespace

PrivateBus::PrivateBus() = default;

PrivateBus::~PrivateBus() {
  End(polkit_);
  Stop();
}

std::string PrivateBus::address() const {
  return absl::StrCat("unix:path=", (folder_ / "socket").string());
}

std::string PrivateBus::variable() const {
  return absl::StrCat("DBUS_SYSTEM_BUS_ADDRESS=", address());
}

absl::Status PrivateBus::Start(uid_t broker) {
  WriteUsers(broker);
  WriteFile(folder_ / "bus.conf",
            absl::StrReplaceAll(kBusConf, {{"ADDRESS", address()},
                                           {"PACKAGING", PACKAGING_FOLDER},
                                           {"POLKIT", kPolkitBusConf}}));
  bus_ = Spawn({kBusDaemon, "--nofork", "--nopidfile",
                "--config-file=" + (folder_ / "bus.conf").string()},
               folder_ / "log", [this] { return KnowUsers(); });
  const bool up =
      WaitUntil([this] { return Busctl(0, {"list"}).ok() || !IsRunning(bus_); },
                kPatience);
  if (up && IsRunning(bus_)) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("no private bus:\n", ReadAll(folder_ / "log")));
}

// Neither knows anybody who is not in these files.
void PrivateBus::WriteUsers(uid_t broker) {
  std::string users = ReadAll("/etc/passwd");
  std::string groups = ReadAll("/etc/group");
  const auto add = [&](const std::string& name, uid_t id) {
    absl::StrAppend(&users, name, ":x:", id, ":", id, "::/:/bin/false\n");
    absl::StrAppend(&groups, name, ":x:", id, ":\n");
  };
  add("bpfgrant", broker);
  add("operator-of-test", kOperator);
  add("stranger-of-test", kStranger);
  if (broker != kBrokerUser) add("broker-of-test", kBrokerUser);
  WriteFile(folder_ / "passwd", users);
  WriteFile(folder_ / "group", groups);
}

bool PrivateBus::KnowUsers() const {
  return unshare(CLONE_NEWNS) == 0 &&
         mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         Cover(folder_ / "passwd", "/etc/passwd") &&
         Cover(folder_ / "group", "/etc/group");
}

void PrivateBus::Stop() {
  End(bus_);
  std::error_code ignored;
  fs::remove(folder_ / "socket", ignored);
}

absl::Status PrivateBus::StartPolkit(const std::string& rules) {
  for (const char* name : {"actions", "rules.d", "none.d"}) {
    fs::create_directory(folder_ / name);
    chmod((folder_ / name).c_str(), 0755);
  }
  WriteFile(
      folder_ / "actions/org.bpfgrant1.policy",
      ReadAll(fs::path(PACKAGING_FOLDER) / "polkit/org.bpfgrant1.policy"));
  WriteFile(folder_ / "rules.d/50-test.rules", rules);
  polkit_ = Spawn({kPolkitd, "--no-debug"}, folder_ / "log", [this] {
    return setenv("DBUS_SYSTEM_BUS_ADDRESS", address().c_str(), 1) == 0 &&
           KnowUsers() &&
           Cover(folder_ / "actions", "/usr/share/polkit-1/actions") &&
           Cover(folder_ / "none.d", "/usr/share/polkit-1/rules.d") &&
           Cover(folder_ / "rules.d", "/etc/polkit-1/rules.d");
  });
  const bool up = WaitUntil(
      [this] {
        return Busctl(0, {"status", "org.freedesktop.PolicyKit1"}).ok() ||
               !IsRunning(polkit_);
      },
      kPatience);
  if (up && IsRunning(polkit_)) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("no polkitd:\n", ReadAll(folder_ / "log")));
}

void PrivateBus::SignalPolkit(int signal) const { kill(polkit_, signal); }

Outcome PrivateBus::Busctl(uid_t uid,
                           const std::vector<std::string>& words) const {
  UnprivilegedOptions options;
  options.uid = uid;
  options.gid = uid;
  options.environment = {variable()};
  return RunUnprivileged("/usr/bin/busctl", words, options);
}

Outcome PrivateBus::Call(uid_t uid, const std::string& method,
                         const std::vector<std::string>& words) const {
  std::vector<std::string> all = {"--system",
                                  "--json=short",
                                  "--allow-interactive-authorization=no",
                                  "call",
                                  "org.bpfgrant1",
                                  "/org/bpfgrant1",
                                  "org.bpfgrant1.Manager",
                                  method};
  all.insert(all.end(), words.begin(), words.end());
  return Busctl(uid, all);
}

}  // namespace bpfgrant::test
