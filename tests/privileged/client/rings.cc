// What a client does with rings of its own, and to the loop on one of them.

#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstring>
#include <random>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/bpfgrant/mapped_array.h"
#include "proto/wire/ring.h"
#include "tests/privileged/client/commands.h"

namespace bpfgrant::test {
namespace {

constexpr uint8_t kUringCmd = 46;
constexpr uint32_t kSetsockopt = 3;  // SOCKET_URING_OP_SETSOCKOPT

RawRing& RingAt(Client& client, const std::string& word) {
  return *client.rings.at(Number(word));
}

std::string Result(int result) {
  return result < 0 ? absl::StrCat("error ", strerrorname_np(-result))
                    : absl::StrCat("ok ", result);
}

// ring SQ CQ [+FLAGS|-FLAGS]...: one as a loop wants it, but for those flags.
// "ok INDEX FD".
std::string MakeRing(Client& client, const Words& words) {
  uint32_t flags = kLoopSetupFlags;
  for (size_t i = 2; i < words.size(); ++i) {
    const auto changed =
        static_cast<uint32_t>(std::stoul(words[i].substr(1), nullptr, 0));
    flags = words[i][0] == '+' ? flags | changed : flags & ~changed;
  }
  auto ring = RawRing::Make(static_cast<uint32_t>(Number(words.at(0))),
                            static_cast<uint32_t>(Number(words.at(1))), flags);
  if (!ring.ok()) return Describe(ring.status());
  client.rings.push_back(*std::move(ring));
  return absl::StrCat("ok ", client.rings.size() - 1, " ",
                      client.rings.back()->fd());
}

std::string RegisterMemory(Client& client, const Words& words) {
  return Result(RingAt(client, words.at(0)).RegisterMemory());
}

// attach PROGRAM FD: asks for it on the ring of that number. "ok GRANT".
std::string Attach(Client& client, const Words& words) {
  Connection::AcquireOptions options;
  options.program = words.at(0);
  options.interface = absl::StrCat(words.at(0), "/1");
  options.delivery = v1::DELIVERY_RING;
  if (words.size() > 1) options.ring = std::stoi(words[1]);
  auto grant = client.connection.value().Acquire(options);
  if (!grant.ok()) return Describe(grant.status());
  client.grants.push_back({*std::move(grant), nullptr});
  return absl::StrCat("ok ", client.grants.size() - 1, " ",
                      client.grants.back().grant.id());
}

// job RING MODE COUNT: what its loop is to do.
std::string SetJob(Client& client, const Words& words) {
  puppet_memory* memory = RingAt(client, words.at(0)).memory();
  memory->mode = static_cast<uint32_t>(Number(words.at(1)));
  memory->count = static_cast<uint32_t>(Number(words.at(2)));
  return "ok";
}

// put RING INDEX nop|read FD|setsockopt FD LEVEL OPTION: into the queue.
std::string PutRequest(Client& client, const Words& words) {
  static const int on = 1;
  static char buffer[64];
  io_uring_sqe& entry = RingAt(client, words.at(0)).sqes()[Number(words.at(1))];
  std::memset(&entry, 0, sizeof(entry));
  entry.fd = -1;
  if (words.at(2) == "nop") {
    entry.opcode = IORING_OP_NOP;
  } else if (words[2] == "read") {
    entry.opcode = IORING_OP_READ;
    entry.fd = std::stoi(words.at(3));
    entry.addr = reinterpret_cast<uintptr_t>(buffer);
    entry.len = sizeof(buffer);
  } else if (words[2] == "setsockopt") {
    const auto option = static_cast<uint32_t>(Number(words.at(5)));
    const auto level = static_cast<uint32_t>(Number(words.at(4)));
    auto* bytes = reinterpret_cast<unsigned char*>(&entry);
    entry.opcode = kUringCmd;
    entry.fd = std::stoi(words.at(3));
    std::memcpy(bytes + offsetof(io_uring_sqe, off), &kSetsockopt,
                sizeof(kSetsockopt));
    // level and optname, optlen, optval (linux/io_uring.h of Linux 6.7).
    std::memcpy(bytes + 16, &level, sizeof(level));
    std::memcpy(bytes + 20, &option, sizeof(option));
    const uint32_t length = sizeof(on);
    std::memcpy(bytes + 44, &length, sizeof(length));
    const auto value = reinterpret_cast<uintptr_t>(&on);
    std::memcpy(bytes + 48, &value, sizeof(value));
  } else {
    return "failed: no such request";
  }
  return "ok";
}

std::string Enable(Client& client, const Words& words) {
  return Result(RingAt(client, words.at(0)).Enable());
}

// enter RING [SUBMIT]: "ok RESULT DONE FIRST": how many completions the loop
// has counted, and the result of the first.
std::string Enter(Client& client, const Words& words) {
  RawRing& ring = RingAt(client, words.at(0));
  const auto submit =
      words.size() > 1 ? static_cast<unsigned int>(Number(words[1])) : 0;
  const int result = ring.Enter(submit, 0);
  if (result < 0) return Result(result);
  return absl::StrCat("ok ", result, " ", ring.memory()->done, " ",
                      ring.memory()->results[0]);
}

// Enables and enters in a thread that never used io_uring before.
std::string EnterInThread(Client& client, const Words& words) {
  RawRing& ring = RingAt(client, words.at(0));
  int enabled = 0, result = 0;
  std::thread thread([&] {
    enabled = ring.Enable();
    if (enabled == 0) result = ring.Enter(0, 0);
  });
  thread.join();
  return enabled < 0 ? Result(enabled) : Result(result);
}

// Enters for as long as it can, and says so only at the end. In this thread:
// "spin RING" is not answered before the loop is taken back. Stops by itself
// after a minute.
std::string Spin(Client& client, const Words& words) {
  RawRing& ring = RingAt(client, words.at(0));
  const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  int result = 0;
  while (result == 0 && std::chrono::steady_clock::now() < end) {
    result = ring.Enter(0, 0);
  }
  return Result(result);
}

// scribble RING MILLISECONDS: enters while a thread rewrites all that is
// shared. "ok ENTERS".
std::string Scribble(Client& client, const Words& words) {
  RawRing& ring = RingAt(client, words.at(0));
  // What the loop waits for may never come: each enter ends with a signal.
  struct sigaction nothing {};
  nothing.sa_handler = [](int) {};
  sigaction(SIGALRM, &nothing, nullptr);
  std::atomic<bool> stop = false;
  std::thread thread([&] {
    std::mt19937 random(1);
    auto* entries = reinterpret_cast<uint32_t*>(ring.sqes());
    const size_t words_of_entries =
        ring.sq_entries() * sizeof(io_uring_sqe) / sizeof(uint32_t);
    auto* head = reinterpret_cast<uint32_t*>(ring.head());
    const size_t words_of_head =
        (sizeof(RingHead) + ring.cq_entries() * sizeof(io_uring_cqe)) /
        sizeof(uint32_t);
    while (!stop) {
      entries[random() % words_of_entries] = random();
      head[random() % words_of_head] = random();
      // Opcodes that exist come by chance too seldom.
      ring.sqes()[random() % ring.sq_entries()].opcode = random() % 65;
    }
  });
  const auto end = std::chrono::steady_clock::now() +
                   std::chrono::milliseconds(Number(words.at(1)));
  unsigned int enters = 0;
  while (std::chrono::steady_clock::now() < end) {
    ring.memory()->mode = PUPPET_SPIN;
    ring.memory()->count = ring.sq_entries();
    if (enters % 2 == 0) ring.memory()->mode = PUPPET_SUBMIT;
    ualarm(100'000, 0);
    ring.Enter(0, 0);
    ++enters;
  }
  ualarm(0, 0);
  stop = true;
  thread.join();
  return absl::StrCat("ok ", enters);
}

// post RING COUNT: completions from another ring of this client's
// (IORING_OP_MSG_RING).
std::string Post(Client& client, const Words& words) {
  const RawRing& target = RingAt(client, words.at(0));
  auto from = RawRing::Make(8, 16, kSetupCqSize | kSetupNoSqArray);
  if (!from.ok()) return Describe(from.status());
  const size_t count = Number(words.at(1));
  for (size_t i = 0; i < count; ++i) {
    io_uring_sqe& entry = (*from)->sqes()[i % 8];
    std::memset(&entry, 0, sizeof(entry));
    entry.opcode = 40;  // IORING_OP_MSG_RING
    entry.fd = target.fd();
    entry.len = 4711;
    entry.off = i;
    (*from)->head()->sq_tail = static_cast<uint32_t>(i + 1);
    const int result = (*from)->Enter(1, 1);
    if (result < 0) return Result(result);
    (*from)->head()->cq_head = (*from)->head()->cq_tail;
  }
  return "ok";
}

std::string Resize(Client& client, const Words& words) {
  return Result(RingAt(client, words.at(0))
                    .Resize(static_cast<uint32_t>(Number(words.at(1))),
                            static_cast<uint32_t>(Number(words.at(2)))));
}

// register RING CALL: an io_uring_register(2) without arguments.
std::string Register(Client& client, const Words& words) {
  return Result(
      RingAt(client, words.at(0))
          .Register(static_cast<unsigned>(Number(words.at(1))), nullptr, 0));
}

// restrict RING OPERATION: the client's own restriction.
std::string Restrict(Client& client, const Words& words) {
  return Result(RingAt(client, words.at(0))
                    .Restrict(static_cast<uint8_t>(Number(words.at(1)))));
}

std::string CloseRing(Client& client, const Words& words) {
  RingAt(client, words.at(0)).Close();
  return "ok";
}

// status GRANT: "ok STOP DETAIL STEPS ENTERS" of its loop.
std::string LoopStatus(Client& client, const Words& words) {
  const auto handle = GrantAt(client, words.at(0)).Find("status");
  if (!handle.ok()) return Describe(handle.status());
  const auto map = MappedArray::Map(**handle);
  if (!map.ok()) return Describe(map.status());
  const auto* status = map->At<bpfgrant_loop_status>(0);
  return absl::StrCat("ok ", status->stop, " ", status->detail, " ",
                      status->steps, " ", status->enters);
}

// tcp: a socket. "ok FD".
std::string MakeTcp(Client& client, const Words&) {
  client.sockets.push_back(
      {UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)), UniqueFd()});
  return absl::StrCat("ok ", client.sockets.back().socket.get());
}

// option FD LEVEL NAME: its value.
std::string GetOption(Client&, const Words& words) {
  int value = 0;
  socklen_t size = sizeof(value);
  if (getsockopt(std::stoi(words.at(0)), std::stoi(words.at(1)),
                 std::stoi(words.at(2)), &value, &size) < 0) {
    return Errno();
  }
  return absl::StrCat("ok ", value);
}

// number GRANT HANDLE INDEX [VALUE]: one of the 8-byte numbers in entry 0 of an
// array of three; set, if a value is given.
std::string OnNumber(Client& client, const Words& words) {
  std::array<uint64_t, 3> numbers{};
  const uint32_t key = 0;
  bpf_attr attributes{};
  attributes.map_fd =
      static_cast<uint32_t>(HandleOf(client, words.at(0), words.at(1)));
  attributes.key = reinterpret_cast<uintptr_t>(&key);
  attributes.value = reinterpret_cast<uintptr_t>(numbers.data());
  const auto call = [&attributes](bpf_cmd command) {
    return syscall(SYS_bpf, command, &attributes, sizeof(attributes));
  };
  if (call(BPF_MAP_LOOKUP_ELEM) < 0) return Errno();
  uint64_t& number = numbers.at(Number(words.at(2)));
  if (words.size() > 3) {
    number = Number(words[3]);
    if (call(BPF_MAP_UPDATE_ELEM) < 0) return Errno();
  }
  return absl::StrCat("ok ", number);
}

// Executes this binary anew with the ring open, which enables and enters it.
std::string ExecuteWithRing(Client& client, const Words& words) {
  RawRing& ring = RingAt(client, words.at(0));
  ring.KeepAcrossExec();
  const std::string number = absl::StrCat(ring.fd());
  execl("/proc/self/exe", "nobody", "ring", number.c_str(), nullptr);
  return Errno();
}

}  // namespace

std::string EnterInherited(int ring) {
  const int enabled = EnableRing(ring);
  return enabled < 0 ? Result(enabled) : Result(EnterRing(ring, 0, 0));
}

void AddRingCommands(Commands& commands) {
  commands["ring"] = MakeRing;
  commands["ring-memory"] = RegisterMemory;
  commands["attach-ring"] = Attach;
  commands["job"] = SetJob;
  commands["put"] = PutRequest;
  commands["enable"] = Enable;
  commands["enter"] = Enter;
  commands["enter-in-thread"] = EnterInThread;
  commands["spin"] = Spin;
  commands["scribble"] = Scribble;
  commands["post"] = Post;
  commands["resize"] = Resize;
  commands["register"] = Register;
  commands["restrict"] = Restrict;
  commands["close-ring"] = CloseRing;
  commands["loop-status"] = LoopStatus;
  commands["number"] = OnNumber;
  commands["tcp"] = MakeTcp;
  commands["option"] = GetOption;
  commands["execute-with-ring"] = ExecuteWithRing;
}

}  // namespace bpfgrant::test
