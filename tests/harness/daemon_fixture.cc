#include "tests/harness/daemon_fixture.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/harness/process_tree.h"
#include "tests/harness/skip.h"

namespace bpfgrant::test {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

// Where the build put it, or where the environment says it is now: tests are
// run on other machines than they were built on.
std::string Path(const char* variable, const char* built) {
  const char* given = std::getenv(variable);
  return given != nullptr ? given : built;
}

absl::Status Failed(const std::string& what) {
  return absl::InternalError(absl::StrCat(what, ": ", std::strerror(errno)));
}

std::string ReadAll(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

// As an administrator's editor does: a new file, moved into its place, so that
// no reader meets half of it.
void WriteFile(const fs::path& path, const std::string& text) {
  const fs::path fresh = path.string() + ".new";
  std::ofstream(fresh, std::ios::binary | std::ios::trunc) << text;
  EXPECT_EQ(chmod(fresh.c_str(), 0644), 0) << fresh;
  std::error_code error;
  fs::rename(fresh, path, error);
  EXPECT_FALSE(error) << path << ": " << error.message();
}

std::string DescribeEnd(int status) {
  return WIFEXITED(status)
             ? absl::StrCat("it ended, exit status ", WEXITSTATUS(status))
             : absl::StrCat("it ended by signal ", WTERMSIG(status));
}

// From 3 on, in the process that is to be the daemon; `pid` is the variable
// that names it. After fork(2): nothing is allocated.
void PassFds(const std::vector<int>& numbers, std::string& pid) {
  if (numbers.empty()) return;
  const int first = STDERR_FILENO + 1;
  const int count = static_cast<int>(numbers.size());
  int above = first + count;
  for (const int number : numbers) above = std::max(above, number + 1);
  // First out of the way of each other.
  for (int i = 0; i < count; ++i) dup2(numbers[i], above + i);
  for (int i = 0; i < count; ++i) dup2(above + i, first + i);
  for (int i = 0; i < count; ++i) close(above + i);
  std::snprintf(pid.data(), pid.size() + 1, "LISTEN_PID=%d", getpid());
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& string : strings) pointers.push_back(string.data());
  pointers.push_back(nullptr);
  return pointers;
}

// The test's environment, without what a service manager told the test.
std::vector<std::string> Environment(const std::vector<std::string>& more) {
  std::vector<std::string> environment = more;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view name =
        std::string_view(*entry).substr(0, std::string_view(*entry).find('='));
    if (name != "NOTIFY_SOCKET" && name != "LISTEN_FDS" &&
        name != "LISTEN_PID" && name != "LISTEN_FDNAMES" && name != "FDSTORE" &&
        name != "JOURNAL_STREAM" && name != "WATCHDOG_USEC" &&
        name != "WATCHDOG_PID") {
      environment.emplace_back(*entry);
    }
  }
  return environment;
}

// Whether this file of a catalog is of a program that the test wants: its
// manifest, its object, or that of a variant, NAME_VARIANT.bpf.o.
bool IsWanted(const fs::path& file, const DaemonOptions& options) {
  const std::string name = file.filename().string();
  const std::string program = name.substr(0, name.find('.'));
  return options.programs.empty() ||
         std::any_of(options.programs.begin(), options.programs.end(),
                     [&](const std::string& wanted) {
                       return program == wanted ||
                              program.starts_with(wanted + "_");
                     });
}

}  // namespace

Daemon::Daemon(fs::path folder)
    : folder_(std::move(folder)),
      runtime_(folder_ / "runtime"),
      catalog_(folder_ / "catalog"),
      policy_(folder_ / "policy"),
      admission_(folder_ / "admission.conf") {}

absl::StatusOr<std::unique_ptr<Daemon>> Daemon::Start(
    const DaemonOptions& options) {
  char name[] = "/run/bpfgrant-test.XXXXXX";
  if (mkdtemp(name) == nullptr || chmod(name, 0755) < 0) return Failed(name);
  std::unique_ptr<Daemon> daemon(new Daemon(name));
  daemon->options_ = options;
  absl::Status status = daemon->Prepare(options);
  if (status.ok() && options.store) status = daemon->BindSockets();
  if (status.ok()) status = daemon->Launch(options);
  if (status.ok()) status = daemon->AwaitReady();
  if (!status.ok()) return status;
  return daemon;
}

absl::Status Daemon::AwaitReady() {
  const absl::Status status = WaitForNotice("READY=1", options_.start_timeout);
  if (!status.ok()) {
    return absl::InternalError(absl::StrCat(
        "the daemon did not start: ", std::string(status.message()),
        "\n--- its log\n", Log(), "---"));
  }
  const std::vector<pid_t> children = ChildrenOf(broker_);
  if (children.size() == 1) loader_ = children.front();
  return absl::OkStatus();
}

absl::Status Daemon::BindSockets() {
  for (const auto& [name, type] : {std::pair("broker.sock", SOCK_SEQPACKET),
                                   std::pair("control.sock", SOCK_STREAM)}) {
    UniqueFd socket(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, (runtime_ / name).c_str(),
                 sizeof(address.sun_path) - 1);
    if (bind(socket.get(), reinterpret_cast<sockaddr*>(&address),
             sizeof(address)) < 0 ||
        chmod(address.sun_path, 0666) < 0 || listen(socket.get(), 1024) < 0) {
      return Failed(name);
    }
    listening_.emplace("bpfgrantd.socket", std::move(socket));
  }
  return keeper_.Start(folder_ / "store.sock", folder_ / "notify.sock");
}

absl::Status Daemon::Restart(Process process, int signal,
                             const std::function<void()>& meanwhile) {
  const pid_t broker = broker_, loader = loader_;
  notices_.Drain();
  Kill(process, signal);
  // The other one ends by itself, or is killed as a service manager does it.
  const auto ended = [&] {
    return WaitForEnd(milliseconds(0)) >= 0 || broker_ < 0;
  };
  if (!WaitUntil(ended, milliseconds(10'000))) {
    return absl::DeadlineExceededError("the broker does not end");
  }
  if (!WaitUntil([loader] { return !IsRunning(loader); },
                 milliseconds(5'000))) {
    kill(loader, SIGKILL);
  }
  kill(-broker, SIGKILL);
  if (guard_ > 0) {
    kill(guard_, SIGKILL);
    waitpid(guard_, nullptr, 0);
    guard_ = -1;
  }
  guard_alive_.reset();
  loader_ = -1;
  meanwhile();
  const absl::Status status = Launch(options_);
  return status.ok() ? AwaitReady() : status;
}

absl::Status Daemon::Prepare(const DaemonOptions& options) {
  for (const fs::path& folder : {runtime_, catalog_, policy_}) {
    if (mkdir(folder.c_str(), 0755) < 0 || chmod(folder.c_str(), 0755) < 0) {
      return Failed(folder);
    }
  }
  WritePolicy(options.policy);
  WriteFile(folder_ / "bpfgrantd.conf", options.config);
  if (options.build_catalog) {
    const fs::path built =
        Path("BPFGRANT_TEST_CATALOG", BPFGRANT_TEST_CATALOG_PATH);
    std::error_code error;
    for (const fs::directory_entry& entry :
         fs::directory_iterator(built, error)) {
      if (!IsWanted(entry.path(), options)) continue;
      WriteFile(catalog_ / entry.path().filename(), ReadAll(entry.path()));
    }
    if (error) {
      return absl::InternalError(
          absl::StrCat(built.string(), ": ", error.message()));
    }
  }
  return notices_.Bind(folder_ / "notify.sock");
}

absl::Status Daemon::Launch(const DaemonOptions& options) {
  const std::string binary =
      options.without.empty()
          ? Path("BPFGRANT_TEST_DAEMON", BPFGRANT_TEST_DAEMON_PATH)
          : Path("BPFGRANT_TEST_WEAKENED", BPFGRANT_TEST_WEAKENED_PATH);
  std::vector<std::string> words = {
      binary,
      "--config",
      folder_ / "bpfgrantd.conf",
      "--runtime-dir",
      runtime_,
      "--catalog",
      catalog_,
      "--policy",
      policy_,
      "--admission",
      admission_,
      "--user",
      absl::StrCat(kBrokerUser, ":", kBrokerUser)};
  if (!options.without.empty()) {
    words.insert(words.end(),
                 {"--without", absl::StrJoin(options.without, ",")});
  }
  words.insert(words.end(), options.arguments.begin(), options.arguments.end());
  std::vector<std::string> environment = options.environment;
  environment.push_back(absl::StrCat(
      "NOTIFY_SOCKET=",
      (folder_ / (options.store ? "store.sock" : "notify.sock")).string()));
  // Unless the test has one for it, none: the machine's own is not for tests.
  environment.push_back(absl::StrCat("DBUS_SYSTEM_BUS_ADDRESS=unix:path=",
                                     (folder_ / "no-bus").string()));
  environment = Environment(environment);
  FdKeeper::Fds passed = options.store ? keeper_.Copy() : FdKeeper::Fds();
  std::vector<int> numbers;
  std::vector<std::string> names;
  for (const FdKeeper::Fds* fds : {&listening_, &passed}) {
    for (const auto& [name, fd] : *fds) {
      numbers.push_back(fd.get());
      names.push_back(name);
    }
  }
  // The pid is filled in by the process that has it.
  std::string listen_pid = "LISTEN_PID=0000000000";
  if (options.store) {
    environment.push_back("FDSTORE=16384");
    environment.push_back(absl::StrCat("LISTEN_FDS=", numbers.size()));
    environment.push_back(
        absl::StrCat("LISTEN_FDNAMES=", absl::StrJoin(names, ":")));
    environment.push_back(listen_pid);
  }
  const std::vector<char*> arguments = Pointers(words);
  const std::vector<char*> variables = Pointers(environment);
  UniqueFd log(open((folder_ / "log").c_str(),
                    O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600));
  if (!log.valid()) return Failed("the log");
  UniqueFd nothing(open("/dev/null", O_RDONLY | O_CLOEXEC));

  broker_ = fork();
  if (broker_ < 0) return Failed("fork");
  if (broker_ == 0) {
    setpgid(0, 0);
    dup2(nothing.get(), STDIN_FILENO);
    dup2(log.get(), STDOUT_FILENO);
    dup2(log.get(), STDERR_FILENO);
    PassFds(numbers, environment.back());
    for (const int capability : options.without_capabilities) {
      if (prctl(PR_CAPBSET_DROP, capability) < 0) _exit(126);
    }
    execve(binary.c_str(), arguments.data(), variables.data());
    dprintf(STDERR_FILENO, "%s: %s\n", binary.c_str(), std::strerror(errno));
    _exit(127);
  }
  // In both processes, as neither knows which one is first.
  setpgid(broker_, broker_);
  const Guard guard = GuardGroup(broker_);
  guard_ = guard.process;
  guard_alive_.reset(guard.alive);
  return absl::OkStatus();
}

absl::Status Daemon::WaitForNotice(const std::string& line,
                                   milliseconds timeout) {
  return notices_.WaitFor(line, timeout, [this] {
    const int status = WaitForEnd(milliseconds(0));
    return status < 0 ? absl::OkStatus()
                      : absl::InternalError(DescribeEnd(status));
  });
}

Daemon::~Daemon() {
  KillAll();
  if (::testing::Test::HasFailure()) {
    std::fprintf(stderr, "--- log of the daemon in %s\n%s---\n",
                 folder_.c_str(), Log().c_str());
  }
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

void Daemon::KillAll() {
  if (broker_ > 0) {
    kill(-broker_, SIGKILL);
    waitpid(broker_, nullptr, 0);
    broker_ = -1;
  }
  // A loader whose broker is gone ends by itself.
  if (loader_ > 0 &&
      !WaitUntil([this] { return !IsRunning(loader_); }, milliseconds(5000))) {
    kill(loader_, SIGKILL);
  }
  loader_ = -1;
  if (guard_ > 0) {
    kill(guard_, SIGKILL);
    waitpid(guard_, nullptr, 0);
    guard_ = -1;
  }
  guard_alive_.reset();
}

std::string Daemon::Log() const { return ReadAll(folder_ / "log"); }

void Daemon::WritePolicy(const std::string& text, const std::string& file) {
  WriteFile(policy_ / file, text);
}

void Daemon::WriteAdmission(const std::string& text) {
  WriteFile(admission_, text);
}

void Daemon::AddCatalogEntry(const std::string& name,
                             const std::string& manifest,
                             const fs::path& object) {
  if (!object.empty()) {
    WriteFile(catalog_ / (name + ".bpf.o"), ReadAll(object));
  }
  WriteFile(catalog_ / (name + ".manifest"), manifest);
}

void Daemon::RemoveCatalogEntry(const std::string& name) {
  EXPECT_TRUE(fs::remove(catalog_ / (name + ".manifest"))) << name;
  fs::remove(catalog_ / (name + ".bpf.o"));
}

absl::Status Daemon::Reload(milliseconds timeout) {
  notices_.Drain();
  Kill(Process::kBroker, SIGHUP);
  absl::Status status = WaitForNotice("RELOADING=1", timeout);
  if (status.ok()) status = WaitForNotice("READY=1", timeout);
  return status;
}

pid_t Daemon::PidOf(Process process) const {
  const pid_t pid = process == Process::kBroker ? broker_ : loader_;
  return IsRunning(pid) ? pid : -1;
}

void Daemon::Kill(Process process, int signal) {
  const pid_t pid = PidOf(process);
  ASSERT_GT(pid, 0) << "there is no such process any more";
  EXPECT_EQ(kill(pid, signal), 0) << std::strerror(errno);
}

int Daemon::WaitForEnd(milliseconds timeout) {
  int status = -1;
  if (broker_ < 0) return -1;  // waitpid(-1) would take any child
  if (WaitUntil([&] { return waitpid(broker_, &status, WNOHANG) == broker_; },
                timeout)) {
    broker_ = -1;
    return status;
  }
  return -1;
}

absl::Status Daemon::Stop(milliseconds timeout) {
  if (broker_ > 0) kill(broker_, SIGTERM);
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  const int status = WaitForEnd(timeout);
  const bool loader_ended =
      WaitUntil([this] { return !IsRunning(loader_); },
                std::chrono::ceil<milliseconds>(
                    deadline - std::chrono::steady_clock::now()));
  if (status < 0 || !loader_ended) {
    KillAll();
    return absl::DeadlineExceededError(
        absl::StrCat("after SIGTERM still running: ",
                     status < 0 ? "the broker" : "the loader"));
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    return absl::InternalError(DescribeEnd(status));
  }
  return absl::OkStatus();
}

void DaemonTest::SetUp() {
  BPFGRANT_REQUIRE_CAPABILITIES(CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE,
                                CAP_SETUID, CAP_SETPCAP);
}

void DaemonTest::TearDown() {
  if (daemon_ != nullptr && daemon_->running()) {
    const absl::Status status = daemon_->Stop();
    EXPECT_TRUE(status.ok()) << std::string(status.message());
  }
  daemon_.reset();
}

::testing::AssertionResult DaemonTest::StartDaemon(
    const DaemonOptions& options) {
  auto daemon = Daemon::Start(options);
  if (!daemon.ok()) {
    return ::testing::AssertionFailure()
           << std::string(daemon.status().message());
  }
  daemon_ = *std::move(daemon);
  return ::testing::AssertionSuccess();
}

}  // namespace bpfgrant::test
