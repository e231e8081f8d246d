#include "daemon/broker/broker.h"

#include <sys/resource.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/broker/audit.h"
#include "daemon/broker/bus.h"
#include "daemon/broker/control.h"
#include "daemon/broker/event_loop.h"
#include "daemon/broker/gates.h"
#include "daemon/broker/grace_period.h"
#include "daemon/broker/granting.h"
#include "daemon/broker/journal.h"
#include "daemon/broker/keeping.h"
#include "daemon/broker/ledger.h"
#include "daemon/broker/loader_client.h"
#include "daemon/broker/pool.h"
#include "daemon/broker/privileges.h"
#include "daemon/broker/remains.h"
#include "daemon/broker/resumption.h"
#include "daemon/broker/service.h"
#include "daemon/broker/snapshot.h"
#include "daemon/broker/tracer.h"
#include "daemon/broker/watchdog.h"
#include "daemon/broker/watchers.h"
#include "proto/wire/limits.h"
#include "spdlog/spdlog.h"

namespace bpfgrant::broker {
namespace {

// fds that are neither sessions' nor the pool's: epoll, sockets, gRPC, logs.
constexpr size_t kReservedFds = 1024;
// fds of one session in this process: its socket and its pidfd.
constexpr size_t kFdsPerSession = 2;
// For what is queued to reach the service manager before the end.
constexpr std::chrono::milliseconds kLeaveDeadline{2'000};

size_t FdLimit() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  return limit.rlim_cur;
}

// All parts, in the order in which they stand on each other.
class Broker {
 public:
  Broker(BrokerOptions options, LoaderClient::Reply ready, Gates gates,
         EventLoop& loop, LoaderClient& loader)
      : options_(std::move(options)),
        kernel_(ready.message.ready().kernel()),
        loader_pid_(ready.message.ready().loader_pid()),
        no_census_(ready.message.ready().no_census()),
        fd_limit_(FdLimit()),
        loop_(loop),
        loader_(loader),
        keeping_(loop_, daemon::FdStore::FromEnvironment(),
                 std::move(options_.found)),
        gates_(std::move(gates)),
        tracer_(MapTracer(ready)),
        steps_(MapSteps(ready)),
        grace_period_(loop_, std::move(ready.fds[2])),
        executables_(loader_, ready.message.ready().no_executables()),
        remains_(loop_, loader_, ledger_, no_census_.empty()),
        pool_(loop_, loader_, gates_, remains_,
              {options_.pool_bytes, fd_limit_ / 4},
              !options_.mitigations.instances_not_reused,
              options_.mitigations.values_by_user),
        audit_(loop_, options_.mitigations,
               [this](v1::AuditRecord record) {
                 journal_.Write(std::move(record));
               }),
        granting_({loop_, loader_, gates_, pool_, ledger_, remains_, watchers_,
                   audit_, executables_, keeping_, options_.mitigations,
                   options_.grants_per_session,
                   [this](uint64_t id) { return FindSession(id); }}),
        rotations_({loop_, gates_, ledger_, grace_period_, options_.mitigations,
                    steps_.has_value() ? &*steps_ : nullptr}),
        service_({loop_, loader_, gates_, pool_, ledger_, watchers_, audit_,
                  granting_, executables_, grace_period_, rotations_,
                  [this](v1::StatusReply& reply) { FillStatus(reply); },
                  [this](bool reloading) { NotifyReload(reloading); },
                  [this](uint64_t id) { return FindSession(id); },
                  tracer_.get()}),
        acceptor_({loop_, service_, granting_, watchers_, keeping_,
                   options_.mitigations, FitToFds(options_.accept),
                   options_.identify, options_.administrator_group},
                  std::move(options_.broker_listener)),
        control_({loop_, service_, watchers_, acceptor_},
                 std::move(options_.control_listener)),
        resumption_({loader_, gates_, ledger_, remains_, keeping_, granting_,
                     acceptor_, audit_}),
        watchdog_(loop_, loader_),
        bus_({loop_, service_, watchers_, options_.mitigations,
              [this](const policy::Subject& subject) {
                return acceptor_.IsAdministrator(subject);
              },
              options_.polkit_deadline}) {
    ledger_.SetFile(keeping_.file());
    pool_.KeepWith(keeping_.keeps() ? &keeping_ : nullptr);
  }

  absl::Status Start(std::shared_ptr<const Snapshot> snapshot) {
    if (fd_limit_ < kMinOpenFiles) {
      return absl::FailedPreconditionError(absl::StrCat(
          "the limit of open files is ", fd_limit_, ", and at least ",
          kMinOpenFiles, " are needed: raise LimitNOFILE= or ulimit -n"));
    }
    granting_.SetSnapshot(snapshot);
    resumption_.Run();
    // What was resumed may have been withdrawn meanwhile.
    if (resumption_.grants() > 0) granting_.SetSnapshot(snapshot);
    audit_.CatalogLoaded(snapshot);
    const v1::ReloadReply summary = Summarize(*snapshot);
    WarnOf(summary, snapshot->rules(), executables_.why_not());
    spdlog::info("{} programs, {} unavailable, {} rules", summary.programs(),
                 summary.unavailable_size(), summary.rules());
    if (const std::string where = Journal::Where(); where != "journal") {
      spdlog::warn("the audit trail goes {}", where);
    }
    if (!no_census_.empty()) {
      spdlog::warn("quota is given back at release: {}", no_census_);
    }
    for (const std::string& name : options_.mitigations.Off()) {
      spdlog::critical("MITIGATION OFF: {}", name);
    }
    for (const int number : {SIGTERM, SIGINT}) {
      signals_.push_back(loop_.Signal(number, [this] { Stop(0); }));
    }
    signals_.push_back(loop_.Signal(SIGUSR1, [this] { Leave(0); }));
    signals_.push_back(loop_.Signal(SIGHUP, [this] {
      spdlog::info("SIGHUP: reloading");
      service_.Reload([](const absl::StatusOr<v1::ReloadReply>&) {});
    }));
    loader_.Start();
    acceptor_.Start();
    if (absl::Status status = control_.Start(); !status.ok()) return status;
    bus_.Start();
    NotifyReady();
    watchdog_.Start();
    return absl::OkStatus();
  }

  // Closes every gate, whatever else then goes wrong, and leaves the loop.
  void Stop(int code) {
    if (options_.mitigations.gate_closes) gates_.CloseAll();
    sd_notify(0, "STOPPING=1");
    watchdog_.Stop();
    acceptor_.Stop();
    pool_.Stop();
    loader_.Abandon();
    remains_.Stop();
    service_.Stop();
    bus_.Stop();
    control_.Stop();
    audit_.Flush();
    loop_.Exit(code);
  }

  // Leaves the loop with everything as it is, for the next daemon to take up;
  // stops, if nothing would be kept.
  void Leave(int code) {
    if (!keeping_.keeps()) {
      spdlog::warn("nothing outlives this daemon: {}", keeping_.why_not());
      Stop(code);
      return;
    }
    spdlog::info("leaves {} sessions and {} grants to the next bpfgrantd",
                 acceptor_.size(), ledger_.size());
    sd_notify(0, "STOPPING=1");
    keeping_.Settle(kLeaveDeadline);
    audit_.Flush();
    loop_.Exit(code);
  }

 private:
  Session* FindSession(uint64_t id) {
    Session* session = acceptor_.FindSession(id);
    return session == nullptr ? bus_.Find(id) : session;
  }

  // What loops are traced with comes fourth, where there are loops. Without it
  // everything else works.
  std::unique_ptr<Tracer> MapTracer(LoaderClient::Reply& ready) {
    if (ready.fds.size() < 4) return nullptr;
    auto tracer =
        Tracer::Map(std::move(ready.fds[3]), loop_, gates_, watchers_);
    if (tracer.ok()) return *std::move(tracer);
    spdlog::error("loops cannot be traced: {}",
                  std::string(tracer.status().message()));
    return nullptr;
  }

  // And their steps, fifth. Without them a loop's maps are not turned over.
  static std::optional<Steps> MapSteps(LoaderClient::Reply& ready) {
    if (ready.fds.size() < 5) return std::nullopt;
    auto steps = Steps::Map(std::move(ready.fds[4]));
    if (steps.ok()) return *std::move(steps);
    spdlog::error("loops cannot rotate: {}",
                  std::string(steps.status().message()));
    return std::nullopt;
  }

  AcceptLimits FitToFds(AcceptLimits limits) const {
    // A quarter is the pool's, a quarter for what is on its way to clients.
    const size_t room = fd_limit_ / 2 - kReservedFds;
    limits.sessions = std::min(limits.sessions, room / kFdsPerSession);
    return limits;
  }

  void NotifyReady() {
    const v1::ReloadReply summary = Summarize(granting_.snapshot());
    sd_notifyf(0,
               "READY=1\n"
               "STATUS=%u programs, %d unavailable, %u rules; last reload: %s",
               summary.programs(), summary.unavailable_size(), summary.rules(),
               service_.last_reload().c_str());
  }

  void NotifyReload(bool reloading) {
    if (!reloading) {
      NotifyReady();
      return;
    }
    // systemd 253 and later compares it with the moment of its own signal.
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    sd_notifyf(
        0, "RELOADING=1\nMONOTONIC_USEC=%lld",
        static_cast<long long>(now.tv_sec) * 1'000'000 + now.tv_nsec / 1000);
  }

  void FillStatus(v1::StatusReply& reply) const {
    reply.set_started_unix_ms(started_);
    reply.set_broker_pid(static_cast<uint32_t>(getpid()));
    reply.set_loader_pid(loader_pid_);
    reply.set_sessions(static_cast<uint32_t>(acceptor_.size()));
    *reply.mutable_kernel() = kernel_;
    reply.set_identity(kernel_.peer_pidfd() &&
                               options_.identify == IdentifyBy::kBest
                           ? "SO_PEERPIDFD"
                           : "pidfd_open and nonce");
    reply.set_quota_returns(!no_census_.empty()
                                ? absl::StrCat("at release: ", no_census_)
                            : options_.mitigations.quota_until_gone
                                ? "when nothing is left in the kernel"
                                : "at release: the mitigation is off");
    reply.set_restart(keeping_.keeps()
                          ? "kept"
                          : absl::StrCat("ended: ", keeping_.why_not()));
    reply.set_stored_fds(static_cast<uint32_t>(keeping_.stored()));
    reply.set_resumed_sessions(resumption_.sessions());
    reply.set_resumed_grants(resumption_.grants());
    reply.set_bus(bus_.Where());
    reply.set_audit(Journal::Where());
    reply.set_audit_lost(journal_.lost());
    for (const std::string& name : options_.catalog_directories) {
      reply.add_catalog_directory(name);
    }
    for (const std::string& name : options_.key_directories) {
      reply.add_key_directory(name);
    }
    for (const std::string& name : options_.admission_files) {
      reply.add_admission_file(name);
    }
    for (const std::string& name : options_.policy_directories) {
      reply.add_policy_directory(name);
    }
    for (const std::string& name : options_.mitigations.Off()) {
      reply.add_mitigations_off(name);
    }
  }

  BrokerOptions options_;
  const v1::KernelFacts kernel_;
  const uint32_t loader_pid_;
  const std::string no_census_;
  const int64_t started_ = UnixMs();
  const size_t fd_limit_;
  EventLoop& loop_;
  LoaderClient& loader_;
  Keeping keeping_;
  Gates gates_;
  Watchers watchers_;
  std::unique_ptr<Tracer> tracer_;
  std::optional<Steps> steps_;
  GracePeriod grace_period_;
  Executables executables_;
  Ledger ledger_;
  Remains remains_;
  Pool pool_;
  Journal journal_;
  Audit audit_;
  Granting granting_;
  Rotations rotations_;
  Service service_;
  Acceptor acceptor_;
  Control control_;
  Resumption resumption_;
  Watchdog watchdog_;
  Bus bus_;
  std::vector<EventLoop::Source> signals_;
};

}  // namespace

int RunBroker(BrokerOptions options) {
  if (absl::Status status =
          DropToBroker(options.uid, options.gid, options.mitigations);
      !status.ok()) {
    spdlog::critical("{}", std::string(status.message()));
    return 1;
  }
  EventLoop loop;
  std::function<void()> on_loader_lost = [&loop] { loop.Exit(1); };
  LoaderClient loader(loop, std::move(options.loader),
                      [&on_loader_lost] { on_loader_lost(); });
  absl::StatusOr<LoaderClient::Reply> ready = loader.WaitReady(kReloadDeadline);
  if (!ready.ok()) {
    spdlog::critical("not started: {}", std::string(ready.status().message()));
    return 1;
  }
  const auto snapshot = Snapshot::Read(ready->fds[1]);
  absl::StatusOr<Gates> gates =
      Gates::Map(std::move(ready->fds[0]), ready->message.ready().gate_slots(),
                 options.mitigations.gate_nonce);
  if (!snapshot.ok() || !gates.ok()) {
    const absl::Status& status =
        snapshot.ok() ? gates.status() : snapshot.status();
    spdlog::critical("not started: {}", std::string(status.message()));
    return 1;
  }
  Broker broker(std::move(options), *std::move(ready), *std::move(gates), loop,
                loader);
  on_loader_lost = [&broker] {
    spdlog::critical("the loader is gone");
    broker.Leave(1);
  };
  if (absl::Status status = broker.Start(*snapshot); !status.ok()) {
    spdlog::critical("not started: {}", std::string(status.message()));
    broker.Stop(1);
    return 1;
  }
  return loop.Run();
}

}  // namespace bpfgrant::broker
