// What a client does with an ordinary ring, and what io_latency saw of it.

#include <linux/bpf.h>
#include <fcntl.h>
#include <liburing.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "bpfgrant/programs/io_latency.h"
#include "tests/privileged/client/commands.h"

namespace bpfgrant::test {
namespace {

// nops COUNT: as many requests, one after the other.
std::string RunNops(Client&, const Words& words) {
  io_uring ring{};
  if (const int error = io_uring_queue_init(8, &ring, 0); error < 0) {
    return absl::StrCat("error ", strerrorname_np(-error));
  }
  for (size_t left = Number(words.at(0)); left > 0; --left) {
    io_uring_prep_nop(io_uring_get_sqe(&ring));
    io_uring_submit_and_wait(&ring, 1);
    io_uring_cq_advance(&ring, 1);
  }
  io_uring_queue_exit(&ring);
  return "ok";
}

// "ok SUBMITTED COMPLETED", as the program counted.
std::string ReadLatencies(int map, const std::string& opcode) {
  const auto key = static_cast<uint32_t>(Number(opcode));
  io_latency_histogram histogram{};
  bpf_attr attributes{};
  attributes.map_fd = static_cast<uint32_t>(map);
  attributes.key = reinterpret_cast<uintptr_t>(&key);
  attributes.value = reinterpret_cast<uintptr_t>(&histogram);
  if (syscall(SYS_bpf, BPF_MAP_LOOKUP_ELEM, &attributes, sizeof(attributes)) <
      0) {
    return Errno();
  }
  return absl::StrCat("ok ", histogram.submitted, " ", histogram.completed);
}

// latencies GRANT OPCODE
std::string ReadLatenciesOfGrant(Client& client, const Words& words) {
  return ReadLatencies(HandleOf(client, words.at(0), "latencies"), words.at(1));
}

// latencies-at FD OPCODE
std::string ReadLatenciesAt(Client&, const Words& words) {
  return ReadLatencies(std::stoi(words.at(0)), words.at(1));
}

// exec-keeping GRANT: executes this very binary, with its session and the map
// `latencies` kept open. "ok FD": the map's.
std::string ExecuteKeeping(Client& client, const Words& words) {
  const int map = HandleOf(client, words.at(0), "latencies");
  for (const int fd : {map, client.connection.value().fd()}) {
    if (fcntl(fd, F_SETFD, 0) < 0) return Errno();
  }
  execl("/proc/self/exe", "nobody", "map", absl::StrCat(map).c_str(), nullptr);
  return Errno();
}

}  // namespace

void AddRequestCommands(Commands& commands) {
  commands["nops"] = RunNops;
  commands["latencies"] = ReadLatenciesOfGrant;
  commands["latencies-at"] = ReadLatenciesAt;
  commands["exec-keeping"] = ExecuteKeeping;
}

}  // namespace bpfgrant::test
