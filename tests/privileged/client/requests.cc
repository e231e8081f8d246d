// What a client does with an ordinary ring, and what io_latency saw of it.

#include <linux/bpf.h>
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

// latencies GRANT OPCODE: "ok SUBMITTED COMPLETED", as the program counted.
std::string ReadLatencies(Client& client, const Words& words) {
  const auto key = static_cast<uint32_t>(Number(words.at(1)));
  io_latency_histogram histogram{};
  bpf_attr attributes{};
  attributes.map_fd =
      static_cast<uint32_t>(HandleOf(client, words.at(0), "latencies"));
  attributes.key = reinterpret_cast<uintptr_t>(&key);
  attributes.value = reinterpret_cast<uintptr_t>(&histogram);
  if (syscall(SYS_bpf, BPF_MAP_LOOKUP_ELEM, &attributes, sizeof(attributes)) <
      0) {
    return Errno();
  }
  return absl::StrCat("ok ", histogram.submitted, " ", histogram.completed);
}

}  // namespace

void AddRequestCommands(Commands& commands) {
  commands["nops"] = RunNops;
  commands["latencies"] = ReadLatencies;
}

}  // namespace bpfgrant::test
