// What turning maps over takes: `bpfgrant_rotate_bench`, as root, on an idle
// machine. Beside it what it stands on, a grace period (membarrier(2)), and
// what it is instead of: the update of an array of maps, which waits for one
// each.

#include <bpf/bpf.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "client/bpfgrant/connection.h"
#include "proto/wire/unique_fd.h"
#include "tests/bench/samples.h"
#include "tests/harness/daemon_fixture.h"

namespace bpfgrant::bench {
namespace {

constexpr size_t kRounds = 200;

[[noreturn]] void Die(const char* what, const std::string& why) {
  std::fprintf(stderr, "%s: %s\n", what, why.c_str());
  std::exit(1);
}

template <typename Value>
Value OrDie(const char* what, absl::StatusOr<Value> value) {
  if (!value.ok()) Die(what, value.status().ToString());
  return *std::move(value);
}

class ArrayOfMaps {
 public:
  ArrayOfMaps() {
    for (UniqueFd& map : inner_) {
      map = UniqueFd(
          bpf_map_create(BPF_MAP_TYPE_ARRAY, "inner", 4, 8, 1, nullptr));
    }
    LIBBPF_OPTS(bpf_map_create_opts, options,
                .inner_map_fd = static_cast<uint32_t>(inner_[0].get()));
    outer_ = UniqueFd(
        bpf_map_create(BPF_MAP_TYPE_ARRAY_OF_MAPS, "outer", 4, 4, 1, &options));
  }
  void Turn() {
    const uint32_t zero = 0;
    const int fd = inner_[now_ = 1 - now_].get();
    if (bpf_map_update_elem(outer_.get(), &zero, &fd, BPF_ANY) != 0)
      Die("bpf_map_update_elem", "of an array of maps");
  }

 private:
  UniqueFd inner_[2], outer_;
  int now_ = 0;
};

template <typename Work>
Samples Measure(Work work) {
  Samples samples;
  for (size_t i = 0; i < kRounds; ++i) samples.Measure(work);
  return samples;
}

void Run(const std::string& socket) {
  Connection connection =
      OrDie("connecting", Connection::Connect({.path = socket}));
  Grant grant =
      OrDie("acquiring",
            connection.Acquire({.program = "turned", .interface = "turned/1"}));
  ArrayOfMaps one, other;
  const auto rotate = [&](const std::vector<std::string>& maps) {
    return Measure([&] { OrDie("Rotate", grant.Rotate(maps)); });
  };
  const Samples update = Measure([&] { one.Turn(); });
  const Samples updates = Measure([&] {
    one.Turn();
    other.Turn();
  });
  const Samples barrier =
      Measure([] { syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0); });
  const std::string baseline = "an update of an array of maps";
  PrintRow(baseline, update);
  PrintRow("two of them", updates, &update, baseline);
  PrintRow("membarrier(2), a grace period", barrier, &update, baseline);
  PrintRow("Rotate of one map", rotate({"first"}), &update, baseline);
  PrintRow("Rotate of two", rotate({"first", "second"}), &update, baseline);
}

}  // namespace
}  // namespace bpfgrant::bench

int main() {
  setenv("BPFGRANT_TEST_CATALOG", TURNED_CATALOG, /*replace=*/1);
  auto daemon = bpfgrant::test::Daemon::Start(
      {.policy = bpfgrant::test::kAllowAll, .programs = {"turned"}});
  if (!daemon.ok()) {
    std::fprintf(stderr, "%s\n", daemon.status().ToString().c_str());
    return 1;
  }
  bpfgrant::bench::Run((*daemon)->broker_socket());
  return (*daemon)->Stop().ok() ? 0 : 1;
}
