// Figures of the loops: `bpfgrant_loop_bench [NAME]...`, as root, on a kernel
// that has loops (tests/vm/run --kernel 7.2); on others, of the native twins
// alone. The host's load falsifies all of them alike: compare ratios.

#include <cstdio>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "client/bpfgrant/connection.h"
#include "tests/bench/loops/chain_bench.h"
#include "tests/bench/loops/file_copy_bench.h"
#include "tests/bench/loops/frames_bench.h"
#include "tests/bench/loops/relay_bench.h"
#include "tests/harness/daemon_fixture.h"

namespace {

using bpfgrant::Connection;

// Null where the kernel has no loops.
std::optional<Connection> Connect(const bpfgrant::test::Daemon& daemon) {
  auto connection = Connection::Connect({.path = daemon.broker_socket()});
  if (!connection.ok()) {
    std::fprintf(stderr, "%s\n", connection.status().ToString().c_str());
    return std::nullopt;
  }
  const auto described = connection->Describe("relay");
  if (!described.ok() || !described->summary().available()) {
    std::fprintf(stderr, "No loops in this kernel: the native twins only.\n");
    return std::nullopt;
  }
  return *std::move(connection);
}

}  // namespace

int main(int argc, char** argv) {
  const std::map<std::string, std::function<void(Connection*)>> benches = {
      {"chain", bpfgrant::bench::BenchChain},
      {"file_copy", bpfgrant::bench::BenchFileCopy},
      {"frames", bpfgrant::bench::BenchFrames},
      {"relay", bpfgrant::bench::BenchRelay},
  };
  auto daemon = bpfgrant::test::Daemon::Start(
      {.policy = bpfgrant::test::kAllowAll});
  if (!daemon.ok()) {
    std::fprintf(stderr, "%s\n", daemon.status().ToString().c_str());
    return 1;
  }
  std::optional<Connection> connection = Connect(**daemon);
  Connection* const kernel = connection.has_value() ? &*connection : nullptr;
  if (argc == 1) {
    for (const auto& [name, bench] : benches) bench(kernel);
  }
  for (int i = 1; i < argc; ++i) {
    const auto found = benches.find(argv[i]);
    if (found == benches.end()) {
      std::fprintf(stderr, "There is no bench '%s'.\n", argv[i]);
      return 2;
    }
    found->second(kernel);
  }
  connection.reset();
  return (*daemon)->Stop().ok() ? 0 : 1;
}
