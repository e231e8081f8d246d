// bpf(2), tried with every fd that a grant brings.

#include <linux/bpf.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bpfgrant/programs/packet_sampler.h"
#include "client/bpfgrant/mapped_array.h"
#include "tests/privileged/client/commands.h"

namespace bpfgrant::test {
namespace {

long Bpf(bpf_cmd command, bpf_attr& attributes) {
  return syscall(SYS_bpf, command, &attributes, sizeof(attributes));
}

uint64_t Address(const void* memory) {
  return reinterpret_cast<uintptr_t>(memory);
}

std::string MapMemory(int fd, int protection) {
  void* memory = mmap(nullptr, 4096, protection, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) return Errno();
  munmap(memory, 4096);
  return "ok";
}

// map GRANT HANDLE OPERATION [SOCKET]: on entry 0. A map of sockets is given
// the socket, others a value of zeros.
std::string OnMap(Client& client, const Words& words) {
  const int fd = HandleOf(client, words.at(0), words.at(1));
  const std::string& operation = words.at(2);
  if (operation == "mmap") return MapMemory(fd, PROT_READ | PROT_WRITE);
  if (operation == "mmap-read") return MapMemory(fd, PROT_READ);
  const uint32_t key = 0;
  uint32_t next = 0;
  std::vector<char> value(4096);
  if (words.size() > 3) {
    const uint64_t socket =
        static_cast<uint64_t>(SocketAt(client, words.at(3)));
    std::memcpy(value.data(), &socket, sizeof(socket));
  }
  bpf_attr attributes{};
  attributes.map_fd = static_cast<uint32_t>(fd);
  if (operation == "freeze") return Outcome(Bpf(BPF_MAP_FREEZE, attributes));
  attributes.key = Address(&key);
  if (operation == "next") {
    attributes.next_key = Address(&next);
    return Outcome(Bpf(BPF_MAP_GET_NEXT_KEY, attributes));
  }
  if (operation == "delete") {
    return Outcome(Bpf(BPF_MAP_DELETE_ELEM, attributes));
  }
  attributes.value = Address(value.data());
  if (operation == "lookup") {
    return Outcome(Bpf(BPF_MAP_LOOKUP_ELEM, attributes));
  }
  if (operation == "update") {
    return Outcome(Bpf(BPF_MAP_UPDATE_ELEM, attributes));
  }
  throw std::invalid_argument("no such operation");
}

// fd-by-id program|map ID: what would win back the rights that a handle lacks.
std::string FdById(Client&, const Words& words) {
  bpf_attr attributes{};
  attributes.map_id = static_cast<uint32_t>(Number(words.at(1)));
  const long fd =
      Bpf(words.at(0) == "map" ? BPF_MAP_GET_FD_BY_ID : BPF_PROG_GET_FD_BY_ID,
          attributes);
  if (fd >= 0) close(static_cast<int>(fd));
  return Outcome(fd);
}

// run GRANT TIMES: the program on made-up data, by BPF_PROG_TEST_RUN;
// "ok MILLISECONDS".
std::string RunProgram(Client& client, const Words& words) {
  const char data[64] = {};
  bpf_attr attributes{};
  attributes.test.prog_fd =
      static_cast<uint32_t>(HandleOf(client, words.at(0), "program"));
  attributes.test.data_in = Address(data);
  attributes.test.data_size_in = sizeof(data);
  attributes.test.repeat = static_cast<uint32_t>(Number(words.at(1)));
  timespec before{}, after{};
  clock_gettime(CLOCK_MONOTONIC, &before);
  if (Bpf(BPF_PROG_TEST_RUN, attributes) < 0) return Errno();
  clock_gettime(CLOCK_MONOTONIC, &after);
  return absl::StrCat("ok ", (after.tv_sec - before.tv_sec) * 1000 +
                                 (after.tv_nsec - before.tv_nsec) / 1000000);
}

std::string Pin(Client& client, const Words& words) {
  bpf_attr attributes{};
  attributes.bpf_fd =
      static_cast<uint32_t>(HandleOf(client, words.at(0), words.at(1)));
  attributes.pathname = Address(words.at(2).c_str());
  return Outcome(Bpf(BPF_OBJ_PIN, attributes));
}

// attach-pin PATH SOCKET: attaches what was pinned there.
std::string AttachPin(Client& client, const Words& words) {
  bpf_attr attributes{};
  attributes.pathname = Address(words.at(0).c_str());
  const UniqueFd program(static_cast<int>(Bpf(BPF_OBJ_GET, attributes)));
  if (!program.valid()) return Errno();
  const int fd = program.get();
  return Outcome(setsockopt(SocketAt(client, words.at(1)), SOL_SOCKET,
                            SO_ATTACH_BPF, &fd, sizeof(fd)));
}

// bind GRANT OTHER HANDLE: has the program of one grant keep a map of the
// other.
std::string BindMap(Client& client, const Words& words) {
  bpf_attr attributes{};
  attributes.prog_bind_map.prog_fd =
      static_cast<uint32_t>(HandleOf(client, words.at(0), "program"));
  attributes.prog_bind_map.map_fd =
      static_cast<uint32_t>(HandleOf(client, words.at(1), words.at(2)));
  return Outcome(Bpf(BPF_PROG_BIND_MAP, attributes));
}

std::string CreateMap(Client&, const Words&) {
  bpf_attr attributes{};
  attributes.map_type = BPF_MAP_TYPE_ARRAY;
  attributes.key_size = attributes.value_size = 4;
  attributes.max_entries = 1;
  return Outcome(Bpf(BPF_MAP_CREATE, attributes));
}

// one-in GRANT N: writes packet_sampler's config through its mapping.
std::string SetOneIn(Client& client, const Words& words) {
  const auto handle = GrantAt(client, words.at(0)).Find("config");
  if (!handle.ok()) return Describe(handle.status());
  const auto array = MappedArray::Map(**handle);
  if (!array.ok()) return Describe(array.status());
  auto* config = array->At<packet_sampler_config>(0);
  __atomic_store_n(&config->one_in, static_cast<uint32_t>(Number(words.at(1))),
                   __ATOMIC_RELAXED);
  return "ok";
}

}  // namespace

void AddBpfCommands(Commands& commands) {
  commands["map"] = OnMap;
  commands["fd-by-id"] = FdById;
  commands["run"] = RunProgram;
  commands["pin"] = Pin;
  commands["attach-pin"] = AttachPin;
  commands["bind"] = BindMap;
  commands["create-map"] = CreateMap;
  commands["one-in"] = SetOneIn;
}

}  // namespace bpfgrant::test
