// What a reload of a thousand programs takes, and what it does to those who
// acquire meanwhile: beside the same at rest, and beside root loading as many
// objects itself.
//
// Run as root on an idle machine. Ratios are of this same run.

#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <utility>
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

using Clock = std::chrono::steady_clock;

constexpr int kPrograms = 1000;
constexpr uint32_t kPool = 64;
// Between two Acquires of one client.
constexpr useconds_t kPauseMicroseconds = 5000;
constexpr std::chrono::seconds kAtRest{3};

Connection Connect(const test::Daemon& daemon) {
  return OrDie(Connection::Connect(
      {.path = daemon.broker_socket(), .timeout = std::chrono::seconds(125)}));
}

std::string NameOf(int i) { return absl::StrCat("program_", i); }

// Acquires and releases one program until it is told to stop.
class Client {
 public:
  Client(const test::Daemon& daemon, const std::string& program)
      : thread_([this, program, connection = Connect(daemon)]() mutable {
          while (!stop_) {
            Once(connection, program);
            usleep(kPauseMicroseconds);
          }
        }) {}
  // What each Acquire took; those that failed are counted.
  Samples Stop(size_t& failed) {
    stop_ = true;
    thread_.join();
    failed += failed_;
    return std::move(samples_);
  }

 private:
  void Once(Connection& connection, const std::string& program) {
    absl::StatusOr<Grant> grant = absl::UnknownError("");
    samples_.Measure([&] {
      grant = connection.Acquire(
          {.program = program, .interface = absl::StrCat(program, "/1")});
    });
    if (grant.ok()) {
      (void)grant->Release();
    } else if (failed_++ == 0) {
      std::fprintf(stderr, "bench: %s\n", grant.status().ToString().c_str());
    }
  }

  std::atomic<bool> stop_ = false;
  size_t failed_ = 0;
  Samples samples_;
  std::thread thread_;
};

// Acquires from the pool, and of a program that has none.
struct Acquires {
  Samples pool, cold;
};

void PrintRatio(const char* name, double value, double baseline,
                const char* baseline_name) {
  std::printf("%-44s %9.2f ms   %6.2fx %s\n", name, value / 1e3,
              value / baseline, baseline_name);
}

// Those made while `work` is done, beside those made at rest.
Acquires During(test::Daemon& daemon, const std::string& name,
                const std::function<void()>& work,
                const Acquires* rest = nullptr, double root_us = 0) {
  Client pool(daemon, "sampler_pool"), cold(daemon, "sampler_cold");
  const auto start = Clock::now();
  work();
  const std::chrono::duration<double, std::micro> took = Clock::now() - start;
  size_t failed = 0;
  Acquires acquires;
  acquires.pool = pool.Stop(failed);
  acquires.cold = cold.Stop(failed);
  std::printf("%s: %zu Acquires failed\n", name.c_str(), failed);
  if (rest == nullptr) rest = &acquires;
  if (root_us > 0) {
    PrintRatio("  took", took.count(), root_us, "root's thousand loads");
  }
  PrintRow("  Acquire from the pool", acquires.pool, &rest->pool, "at rest");
  PrintRow("  Acquire cold", acquires.cold, &rest->cold, "at rest");
  PrintRatio("  the longest from the pool", acquires.pool.Percentile(1),
             rest->pool.Percentile(1), "at rest");
  PrintRatio("  the longest cold", acquires.cold.Percentile(1),
             rest->cold.Percentile(1), "at rest");
  std::fflush(stdout);
  return acquires;
}

void Reload(test::Daemon& daemon, uint32_t expected) {
  Connection connection = Connect(daemon);
  const v1::ReloadReply reply = OrDie(connection.Reload());
  if (reply.programs() == expected) return;
  std::fprintf(stderr, "bench: %u programs, where %u should be\n",
               reply.programs(), expected);
  std::exit(1);
}

void Touch(const std::filesystem::path& manifest) {
  std::ofstream(manifest, std::ios::app) << "# another\n";
}

void RunAll(test::Daemon& daemon) {
  std::printf("%-44s %12s %12s\n", "", "p50", "p99");
  const Samples root =
      LoadsByRoot(absl::StrCat(BENCH_CATALOG, "/packet_sampler.bpf.o"), 500);
  PrintRow("root opens and loads packet_sampler", root);
  const double root_us = root.Percentile(0.5) * kPrograms;
  const Acquires rest =
      During(daemon, "at rest", [] { std::this_thread::sleep_for(kAtRest); });
  const auto reload = [&](const std::string& name, uint32_t programs) {
    During(
        daemon, name, [&] { Reload(daemon, programs); }, &rest, root_us);
  };
  for (int i = 0; i < kPrograms; ++i) AddSampler(daemon, NameOf(i), 0);
  reload("reload with 1000 more", kPrograms + 2);
  reload("reload, nothing changed", kPrograms + 2);
  Touch(daemon.catalog_directory() / (NameOf(7) + ".manifest"));
  reload("reload, one changed", kPrograms + 2);
  for (int i = 0; i < kPrograms; ++i) daemon.RemoveCatalogEntry(NameOf(i));
  reload("reload without them", 2);
}

}  // namespace
}  // namespace bpfgrant::bench

int main() {
  using bpfgrant::bench::AddSampler;
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  bpfgrant::test::DaemonOptions options;
  options.policy = bpfgrant::test::kAllowAll;
  options.config = "limits { pool_bytes: 1073741824 }";
  options.build_catalog = false;
  auto daemon = bpfgrant::test::Daemon::Start(options);
  if (!daemon.ok()) {
    std::fprintf(stderr, "bench: %s\n", daemon.status().ToString().c_str());
    return 1;
  }
  AddSampler(**daemon, "sampler_pool", bpfgrant::bench::kPool);
  AddSampler(**daemon, "sampler_cold", 0);
  if (absl::Status status = (*daemon)->Reload(); !status.ok()) {
    std::fprintf(stderr, "bench: %s\n", status.ToString().c_str());
    return 1;
  }
  bpfgrant::bench::RunAll(**daemon);
  return (*daemon)->Stop().ok() ? 0 : 1;
}
