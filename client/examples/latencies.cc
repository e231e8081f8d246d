// latencies: a process without any privilege that has the kernel time its own
// io_uring requests.
//
// It asks bpfgrantd for io_latency, reads a file block by block through its
// ring, and prints what the program saw: how many requests of each operation,
// and the latency that half of them, and 99 in 100, stayed below.

#include <linux/bpf.h>
#include <fcntl.h>
#include <liburing.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "bpfgrant/programs/io_latency.h"
#include "client/bpfgrant/connection.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::example {
namespace {

constexpr unsigned kBlockBytes = 4096;

// Where the bucket begins, in nanoseconds.
uint64_t BucketStart(uint32_t bucket) {
  return bucket < 4 ? bucket : uint64_t{4 + bucket % 4} << (bucket / 4 - 1);
}

// What `share` of the requests stayed below.
uint64_t Quantile(const io_latency_histogram& histogram, double share) {
  auto left = static_cast<double>(histogram.completed) * share;
  uint32_t bucket = 0;
  for (; bucket + 1 < IO_LATENCY_BUCKETS; ++bucket) {
    left -= static_cast<double>(histogram.bucket[bucket]);
    if (left <= 0) break;
  }
  return BucketStart(bucket + 1);
}

absl::StatusOr<io_latency_histogram> Read(const Grant& grant, uint32_t opcode) {
  const absl::StatusOr<const Grant::Handle*> handle = grant.Find("latencies");
  if (!handle.ok()) return handle.status();
  io_latency_histogram histogram{};
  bpf_attr attributes{};
  attributes.map_fd = static_cast<uint32_t>((*handle)->fd.get());
  attributes.key = reinterpret_cast<uintptr_t>(&opcode);
  attributes.value = reinterpret_cast<uintptr_t>(&histogram);
  if (syscall(SYS_bpf, BPF_MAP_LOOKUP_ELEM, &attributes, sizeof(attributes)) <
      0) {
    return absl::InternalError(
        absl::StrCat("reading the histogram: ", std::strerror(errno)));
  }
  return histogram;
}

absl::Status ReadThroughRing(const std::string& path, int blocks) {
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) {
    return absl::NotFoundError(absl::StrCat(path, ": ", std::strerror(errno)));
  }
  io_uring ring{};
  if (const int error = io_uring_queue_init(8, &ring, 0); error < 0) {
    return absl::InternalError(
        absl::StrCat("io_uring: ", std::strerror(-error)));
  }
  std::vector<char> block(kBlockBytes);
  for (int i = 0; i < blocks; ++i) {
    io_uring_prep_read(io_uring_get_sqe(&ring), file.get(), block.data(),
                       kBlockBytes, static_cast<uint64_t>(i) * kBlockBytes);
    io_uring_submit_and_wait(&ring, 1);
    io_uring_cq_advance(&ring, 1);
  }
  io_uring_queue_exit(&ring);
  return absl::OkStatus();
}

absl::Status Print(const Grant& grant) {
  for (uint32_t opcode = 0; opcode < IO_LATENCY_OPCODES; ++opcode) {
    const auto seen = Read(grant, opcode);
    if (!seen.ok()) return seen.status();
    if (seen->submitted == 0) continue;
    std::printf(
        "opcode %u: %llu requests, %llu timed, p50 %llu ns, p99 %llu ns\n",
        opcode, static_cast<unsigned long long>(seen->submitted),
        static_cast<unsigned long long>(seen->completed),
        static_cast<unsigned long long>(Quantile(*seen, 0.5)),
        static_cast<unsigned long long>(Quantile(*seen, 0.99)));
  }
  return absl::OkStatus();
}

struct Arguments {
  std::string socket = kDefaultBrokerSocket;
  std::string file = "/proc/self/exe";
  int blocks = 1000;
};

absl::Status Main(const Arguments& arguments) {
  absl::StatusOr<Connection> connection =
      Connection::Connect({.path = arguments.socket});
  if (!connection.ok()) return connection.status();
  const absl::StatusOr<Grant> grant =
      connection->Acquire({.program = "io_latency",
                           .interface = IO_LATENCY_INTERFACE,
                           .interface_hash = IO_LATENCY_INTERFACE_HASH,
                           .delivery = v1::DELIVERY_PROCESS});
  if (!grant.ok()) return grant.status();
  if (auto status = ReadThroughRing(arguments.file, arguments.blocks);
      !status.ok()) {
    return status;
  }
  return Print(*grant);
}

}  // namespace
}  // namespace bpfgrant::example

int main(int argc, char** argv) {
  bpfgrant::example::Arguments arguments;
  CLI::App app("Reads a file and says how long its reads took.");
  app.add_option("--socket", arguments.socket, "broker.sock of the daemon");
  app.add_option("--file", arguments.file, "what to read");
  app.add_option("--blocks", arguments.blocks, "of 4096 bytes, how many");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = bpfgrant::example::Main(arguments);
  if (status.ok()) return 0;
  std::fprintf(stderr, "latencies: %s\n",
               std::string(status.message()).c_str());
  return 1;
}
