// Figures of the loops: `bpfgrant_loop_bench [NAME]...`, as root, on a kernel
// that has loops (tests/vm/run --kernel 7.2); on others, of the native twins
// alone. The host's load falsifies all of them alike: compare ratios.

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "client/bpfgrant/connection.h"
#include "tests/bench/loops/chain_bench.h"
#include "tests/bench/loops/file_copy_bench.h"
#include "tests/bench/loops/frames_bench.h"
#include "tests/bench/loops/nop_bench.h"
#include "tests/bench/loops/relay_bench.h"
#include "tests/harness/daemon_fixture.h"

namespace {

using bpfgrant::Connection;
using bpfgrant::test::Daemon;

struct Bench {
  std::string program;  // of the catalog
  std::function<void(Connection*)> run;
};

const std::map<std::string, Bench>& Benches() {
  static const std::map<std::string, Bench> benches = {
      {"chain", {"chain", bpfgrant::bench::BenchChain}},
      {"file_copy", {"file_copy", bpfgrant::bench::BenchFileCopy}},
      {"frames", {"frame_reader", bpfgrant::bench::BenchFrames}},
      {"nop", {"nop", bpfgrant::bench::BenchNop}},
      {"relay", {"relay", bpfgrant::bench::BenchRelay}},
  };
  return benches;
}

// The daemon with these programs; `nop` is of no catalog but the bench's own.
absl::StatusOr<std::unique_ptr<Daemon>> Start(
    const std::vector<std::string>& programs) {
  auto daemon = Daemon::Start(
      {.policy = bpfgrant::test::kAllowAll, .programs = programs});
  if (!daemon.ok() || std::count(programs.begin(), programs.end(), "nop") == 0)
    return daemon;
  const std::string from = NOP_CATALOG;
  std::stringstream manifest;
  manifest << std::ifstream(from + "/nop.manifest").rdbuf();
  (*daemon)->AddCatalogEntry("nop", manifest.str(), from + "/nop.bpf.o");
  if (absl::Status status = (*daemon)->Reload(); !status.ok()) return status;
  return daemon;
}

// Null where the kernel has no loops.
std::optional<Connection> Connect(const Daemon& daemon,
                                  const std::string& program) {
  auto connection = Connection::Connect({.path = daemon.broker_socket()});
  if (!connection.ok()) {
    std::fprintf(stderr, "%s\n", connection.status().ToString().c_str());
    return std::nullopt;
  }
  const auto described = connection->Describe(program);
  if (!described.ok() || !described->summary().available()) {
    std::fprintf(stderr, "No loops in this kernel: the native twins only.\n");
    return std::nullopt;
  }
  return *std::move(connection);
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> names(argv + 1, argv + argc), programs;
  if (names.empty()) {
    for (const auto& [name, bench] : Benches()) names.push_back(name);
  }
  for (const std::string& name : names) {
    const auto found = Benches().find(name);
    if (found == Benches().end()) {
      std::fprintf(stderr, "There is no bench '%s'.\n", name.c_str());
      return 2;
    }
    programs.push_back(found->second.program);
  }
  auto daemon = Start(programs);
  if (!daemon.ok()) {
    std::fprintf(stderr, "%s\n", daemon.status().ToString().c_str());
    return 1;
  }
  std::optional<Connection> connection = Connect(**daemon, programs.front());
  Connection* const kernel = connection.has_value() ? &*connection : nullptr;
  for (const std::string& name : names) Benches().at(name).run(kernel);
  connection.reset();
  return (*daemon)->Stop().ok() ? 0 : 1;
}
