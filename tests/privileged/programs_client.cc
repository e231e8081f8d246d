// A client of uid 65534 that uses the fds of a reuseport_steer as a grant would
// bring them: program 10, config 11 (read and write), sockets 12 (write only),
// counters 13 (read only). Prints what went otherwise than it should.

#include <linux/bpf.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "bpf-programs/reuseport_steer/reuseport_steer.h"
#include "tests/harness/probe_privilege.h"

namespace {

constexpr int kProgram = 10, kConfig = 11, kSockets = 12, kCounters = 13;

int failures = 0;

void Expect(bool condition, const char* what) {
  if (condition) return;
  std::printf("not so: %s (%s)\n", what, std::strerror(errno));
  ++failures;
}

long Element(bpf_cmd command, int map, uint32_t key, void* value) {
  bpf_attr attributes{};
  attributes.map_fd = static_cast<uint32_t>(map);
  attributes.key = reinterpret_cast<uint64_t>(&key);
  attributes.value = reinterpret_cast<uint64_t>(value);
  return syscall(SYS_bpf, command, &attributes, sizeof(attributes));
}

int OpenMember(sockaddr_in& address) {
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  const int on = 1;
  socklen_t size = sizeof(address);
  setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
  Expect(bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0, "bind");
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  return fd;
}

void UseProgram() {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  uint64_t members[2];
  for (uint32_t i = 0; i < 2; ++i) {
    members[i] = static_cast<uint64_t>(OpenMember(address));
    Expect(Element(BPF_MAP_UPDATE_ELEM, kSockets, i, &members[i]) == 0,
           "a socket goes into the array");
  }
  Expect(setsockopt(static_cast<int>(members[0]), SOL_SOCKET,
                    SO_ATTACH_REUSEPORT_EBPF, &kProgram, sizeof(kProgram)) == 0,
         "the program attaches");
  auto* config = static_cast<reuseport_steer_config*>(
      mmap(nullptr, sizeof(reuseport_steer_config), PROT_READ | PROT_WRITE,
           MAP_SHARED, kConfig, 0));
  Expect(config != MAP_FAILED, "the config can be mapped");
  *config = {.length = 1, .sockets = 2};
  const int sender = socket(AF_INET, SOCK_DGRAM, 0);
  for (int byte = 0; byte < 64; ++byte) {
    const char id = static_cast<char>(byte);
    sendto(sender, &id, 1, 0, reinterpret_cast<sockaddr*>(&address),
           sizeof(address));
  }
  for (const uint64_t member : members) {
    char id;
    Expect(recv(static_cast<int>(member), &id, 1, MSG_DONTWAIT) == 1,
           "each socket got something");
  }
}

void ExceedRights() {
  uint64_t cookie = 0;
  Expect(
      Element(BPF_MAP_LOOKUP_ELEM, kSockets, 0, &cookie) < 0 && errno == EPERM,
      "the array of sockets cannot be read");
  reuseport_steer_counters counters{};
  Expect(Element(BPF_MAP_LOOKUP_ELEM, kCounters, 0, &counters) == 0 &&
             counters.steered == 64,
         "the counters can be read, and say 64");
  Expect(Element(BPF_MAP_UPDATE_ELEM, kCounters, 0, &counters) < 0 &&
             errno == EPERM,
         "the counters cannot be written");
}

}  // namespace

int main() {
  bpfgrant::test::AssertUnprivileged();
  UseProgram();
  ExceedRights();
  return failures == 0 ? 0 : 1;
}
