#include "daemon/run.h"

#include <dirent.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <utility>
#include <variant>

#include "daemon/broker/broker.h"
#include "daemon/loader/loader.h"
#include "daemon/options.h"
#include "daemon/sockets.h"
#include "spdlog/sinks/stdout_color_sinks.h"
#include "spdlog/spdlog.h"

namespace bpfgrant::daemon {
namespace {

void SetUpLog(const char* process, bool verbose) {
  auto logger = std::make_shared<spdlog::logger>(
      process, std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  // The journal has its own clock.
  logger->set_pattern(getenv("JOURNAL_STREAM") != nullptr
                          ? "%n: %v"
                          : "%H:%M:%S.%e %n %^%l%$: %v");
  logger->set_level(verbose ? spdlog::level::debug : spdlog::level::info);
  logger->flush_on(spdlog::level::trace);
  spdlog::set_default_logger(std::move(logger));
}

// As far as they may be raised: both processes hold fds for others.
void RaiseFdLimit() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

int ThreadCount() {
  DIR* tasks = opendir("/proc/self/task");
  if (tasks == nullptr) return 0;
  int count = 0;
  while (const dirent* entry = readdir(tasks)) count += entry->d_name[0] != '.';
  closedir(tasks);
  return count;
}

void BlockSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number :
       {SIGHUP, SIGTERM, SIGINT, SIGUSR1, SIGCHLD, SIGPIPE}) {
    sigaddset(&signals, number);
  }
  sigprocmask(SIG_BLOCK, &signals, nullptr);
}

// The loader has nothing to decide about signals: it ends when the broker does.
// It leaves the terminal's signals and the service manager's to the broker.
int RunLoaderProcess(UniqueFd socket, const Options& options, Sockets sockets,
                     const Mitigations& mitigations) {
  SetUpLog("bpfgrantd-loader", options.verbose);
  // Clients' connections are no business of this process.
  sockets.broker.reset();
  sockets.control.reset();
  sockets.brokers.clear();
  LoaderOptions loader;
  loader.catalog_directories = options.catalog_directories;
  loader.policy_directories = options.policy_directories;
  loader.key_directories = options.key_directories;
  loader.admission_files = options.admission_files;
  loader.mitigations = mitigations;
  const int code =
      RunLoader(std::move(socket), loader, std::move(sockets.loaders));
  // The broker could not: the directory is root's.
  RemoveSockets(sockets);
  return code;
}

broker::BrokerOptions ToBrokerOptions(const Options& options, Sockets& sockets,
                                      const Mitigations& mitigations) {
  broker::BrokerOptions broker;
  broker.broker_listener = std::move(sockets.broker);
  broker.control_listener = std::move(sockets.control);
  broker.found = std::move(sockets.brokers);
  broker.uid = options.broker_uid;
  broker.gid = options.broker_gid;
  broker.administrator_group = options.administrator_group;
  broker.identify = options.identify_by_nonce ? broker::IdentifyBy::kNonce
                                              : broker::IdentifyBy::kBest;
  broker.accept.sessions = options.limits.sessions();
  broker.accept.sessions_per_user = options.limits.sessions_per_user();
  broker.accept.handshake =
      std::chrono::milliseconds(options.limits.handshake_ms());
  broker.pool_bytes = options.limits.pool_bytes();
  broker.grants_per_session = options.limits.grants_per_session();
  broker.polkit_deadline =
      std::chrono::milliseconds(options.limits.polkit_ms());
  broker.catalog_directories = options.catalog_directories;
  broker.key_directories = options.key_directories;
  broker.policy_directories = options.policy_directories;
  broker.admission_files = options.admission_files;
  broker.mitigations = mitigations;
  return broker;
}

// The loader ends when it sees the broker's end of the socketpair closed. One
// that hangs in the kernel is left to the service manager.
void WaitForLoader(pid_t loader) {
  for (int i = 0; i < 500; ++i) {
    if (waitpid(loader, nullptr, WNOHANG) != 0) return;
    const timespec pause{0, 10'000'000};
    nanosleep(&pause, nullptr);
  }
  spdlog::error("the loader (pid {}) does not end", loader);
}

}  // namespace

int Run(int argc, char** argv, Mitigations mitigations) {
  std::variant<Options, int> parsed = ReadOptions(argc, argv);
  if (const int* code = std::get_if<int>(&parsed)) return *code;
  const Options& options = std::get<Options>(parsed);
  SetUpLog("bpfgrantd", options.verbose);
  if (geteuid() != 0) {
    spdlog::critical("must be started as root; it gives up what it can");
    return 1;
  }
  BlockSignals();
  RaiseFdLimit();
  absl::StatusOr<Sockets> sockets =
      OpenSockets(options.runtime_directory, mitigations);
  if (!sockets.ok()) {
    spdlog::critical("not started: {}",
                     std::string(sockets.status().message()));
    return 1;
  }
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
                 pair) < 0) {
    spdlog::critical("not started: socketpair: {}", std::strerror(errno));
    return 1;
  }
  UniqueFd broker_end(pair[0]);
  UniqueFd loader_end(pair[1]);
  // A thread would be in one of the two processes only, and its locks in both.
  if (ThreadCount() != 1) {
    spdlog::critical("not started: there are threads before the split");
    return 1;
  }
  const pid_t loader = fork();
  if (loader < 0) {
    spdlog::critical("not started: fork: {}", std::strerror(errno));
    return 1;
  }
  if (loader == 0) {
    broker_end.reset();
    // _exit: what the two processes share on leaving (buffers, handlers) is the
    // broker's.
    _exit(RunLoaderProcess(std::move(loader_end), options, *std::move(sockets),
                           mitigations));
  }
  loader_end.reset();
  // Loops' links among them: not this process's to have.
  sockets->loaders.clear();
  SetUpLog("bpfgrantd", options.verbose);
  broker::BrokerOptions broker =
      ToBrokerOptions(options, *sockets, mitigations);
  broker.loader = std::move(broker_end);
  const int code = broker::RunBroker(std::move(broker));
  WaitForLoader(loader);
  return code;
}

}  // namespace bpfgrant::daemon
