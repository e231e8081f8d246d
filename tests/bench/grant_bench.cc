// What a grant costs: from the pool and cold, beside the raw round trip with as
// many fds and beside root loading the same object itself; how many a second;
// and how much memory a session takes.
//
// Run as root on an idle machine. Ratios are of medians in this same run.

#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/bpfgrant/connection.h"
#include "tests/bench/baseline.h"
#include "tests/bench/catalog_entries.h"
#include "tests/bench/or_die.h"
#include "tests/bench/samples.h"
#include "tests/harness/daemon_fixture.h"

namespace bpfgrant::bench {
namespace {

constexpr uint32_t kPool = 256;
constexpr size_t kBatch = 200;  // acquired before the pool is let fill again
constexpr size_t kRounds = 4000;
// Long enough for everybody to be asleep.
constexpr useconds_t kPauseMicroseconds = 2000;

Connection Connect(const test::Daemon& daemon) {
  return OrDie(Connection::Connect({.path = daemon.broker_socket()}));
}

Connection::AcquireOptions Request(const std::string& program) {
  return {.program = program, .interface = absl::StrCat(program, "/1")};
}

void WaitForPool(Connection& connection, const std::string& program,
                 uint32_t ready) {
  for (int i = 0; i < 5000; ++i) {
    if (OrDie(connection.Describe(program)).summary().pool_ready() >= ready) {
      return;
    }
    usleep(2000);
  }
  std::fprintf(stderr, "bench: the pool does not fill\n");
  std::exit(1);
}

// `batch` at a time with a full pool before each.
Samples FromPool(test::Daemon& daemon, const std::string& program,
                 size_t rounds, size_t batch) {
  Connection connection = Connect(daemon);
  Samples samples;
  while (samples.size() < rounds) {
    WaitForPool(connection, program, static_cast<uint32_t>(batch));
    std::vector<Grant> grants;
    for (size_t i = 0; i < batch; ++i) {
      samples.Measure([&] {
        grants.push_back(OrDie(connection.Acquire(Request(program))));
      });
    }
    for (Grant& grant : grants) (void)grant.Release();
  }
  return samples;
}

// One at a time, with the pool full and every process asleep before each.
Samples FromPoolAtRest(test::Daemon& daemon, const std::string& program,
                       uint32_t ready, size_t rounds) {
  Connection connection = Connect(daemon);
  Samples samples;
  for (size_t i = 0; i < rounds; ++i) {
    WaitForPool(connection, program, ready);
    usleep(kPauseMicroseconds);
    Grant* grant = nullptr;
    samples.Measure([&] {
      grant = new Grant(OrDie(connection.Acquire(Request(program))));
    });
    (void)grant->Release();
    delete grant;
  }
  return samples;
}

Samples Cold(test::Daemon& daemon, const std::string& program, size_t rounds) {
  Connection connection = Connect(daemon);
  Samples samples;
  for (size_t i = 0; i < rounds; ++i) {
    Grant* grant = nullptr;
    samples.Measure([&] {
      grant = new Grant(OrDie(connection.Acquire(Request(program))));
    });
    (void)grant->Release();
    delete grant;
  }
  return samples;
}

double AcquiresPerSecond(test::Daemon& daemon, size_t clients) {
  std::atomic<bool> stop = false;
  std::atomic<size_t> count = 0;
  std::vector<std::thread> threads;
  for (size_t i = 0; i < clients; ++i) {
    threads.emplace_back([&] {
      Connection connection = Connect(daemon);
      while (!stop) {
        Grant grant = OrDie(connection.Acquire(Request("sampler_pool")));
        (void)grant.Release();
        ++count;
      }
    });
  }
  const auto start = std::chrono::steady_clock::now();
  std::this_thread::sleep_for(std::chrono::seconds(3));
  const size_t done = count;
  const std::chrono::duration<double> took =
      std::chrono::steady_clock::now() - start;
  stop = true;
  for (std::thread& thread : threads) thread.join();
  return static_cast<double>(done) / took.count();
}

long ResidentKilobytes(pid_t pid) {
  std::ifstream status(absl::StrCat("/proc/", pid, "/status"));
  std::string word;
  long kilobytes = 0;
  while (status >> word) {
    if (word == "VmRSS:") status >> kilobytes;
  }
  return kilobytes;
}

void Memory(test::Daemon& daemon) {
  using Process = test::Daemon::Process;
  const pid_t broker = daemon.PidOf(Process::kBroker);
  const long idle = ResidentKilobytes(broker);
  std::printf("%-44s %6ld KiB broker, %6ld KiB loader\n", "resident, idle",
              idle, ResidentKilobytes(daemon.PidOf(Process::kLoader)));
  constexpr size_t kSessions = 1000;
  std::vector<Connection> sessions;
  for (size_t i = 0; i < kSessions; ++i) sessions.push_back(Connect(daemon));
  std::printf("%-44s %6.1f KiB (%zu at once)\n", "resident, for each session",
              static_cast<double>(ResidentKilobytes(broker) - idle) / kSessions,
              kSessions);
}

void RunAll(test::Daemon& daemon) {
  Connection connection = Connect(daemon);
  const Grant probe = OrDie(connection.Acquire(Request("sampler_pool")));
  const size_t fds = probe.handles().size();
  std::printf("%-44s %12s %12s\n", "", "p50", "p99");
  Memory(daemon);

  const std::string raw_name =
      absl::StrCat("the raw round trip with ", fds, " fds");
  const Samples raw = RawRoundTrips(kRounds, fds, 256);
  PrintRow(raw_name, raw);
  PrintRow("Acquire from the pool, one after the other",
           FromPool(daemon, "sampler_pool", kRounds, kBatch), &raw, raw_name);
  const Samples raw_rest =
      RawRoundTrips(kRounds / 4, fds, 256, kPauseMicroseconds);
  PrintRow("the same, a pause before each", raw_rest);
  PrintRow("Acquire from the pool, a pause before each",
           FromPoolAtRest(daemon, "sampler_pool", kPool, kRounds / 4),
           &raw_rest, "that");

  const Samples root =
      LoadsByRoot(absl::StrCat(BENCH_CATALOG, "/packet_sampler.bpf.o"), 1000);
  PrintRow("root opens and loads packet_sampler", root);
  PrintRow("Acquire from the pool",
           FromPool(daemon, "sampler_pool", kRounds, kBatch), &root,
           "root's own load");
  PrintRow("Acquire cold", Cold(daemon, "sampler_cold", 1000), &root,
           "root's own load");

  const Samples root_btf = LoadsByRoot(BENCH_KERNEL_BTF_OBJECT, 60);
  PrintRow("root opens and loads one that needs BTF", root_btf);
  PrintRow("Acquire of it from the pool",
           FromPool(daemon, "kernel_btf", 240, 48), &root_btf,
           "root's own load");
  for (const size_t clients : {1, 8, 64}) {
    std::printf(
        "%-44s %9.0f a second\n",
        absl::StrCat("Acquire and Release, ", clients, " clients").c_str(),
        AcquiresPerSecond(daemon, clients));
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace bpfgrant::bench

int main() {
  using bpfgrant::bench::AddKernelBtf;
  using bpfgrant::bench::AddSampler;
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  bpfgrant::test::DaemonOptions options;
  options.policy = bpfgrant::test::kAllowAll;
  options.config = "limits { pool_bytes: 1073741824 }";
  auto daemon = bpfgrant::test::Daemon::Start(options);
  if (!daemon.ok()) {
    std::fprintf(stderr, "bench: %s\n", daemon.status().ToString().c_str());
    return 1;
  }
  AddSampler(**daemon, "sampler_pool", bpfgrant::bench::kPool);
  AddSampler(**daemon, "sampler_cold", 0);
  AddKernelBtf(**daemon, 64);
  if (absl::Status status = (*daemon)->Reload(); !status.ok()) {
    std::fprintf(stderr, "bench: %s\n", status.ToString().c_str());
    return 1;
  }
  bpfgrant::bench::RunAll(**daemon);
  return (*daemon)->Stop().ok() ? 0 : 1;
}
