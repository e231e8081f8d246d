#include "tests/bench/baseline.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <vector>

#include "proto/wire/limits.h"
#include "proto/wire/message_socket.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::bench {
namespace {

[[noreturn]] void Die(const char* what) {
  std::perror(what);
  std::exit(1);
}

void WaitReadable(int socket) {
  pollfd watch{socket, POLLIN, 0};
  while (poll(&watch, 1, -1) != 1) {
  }
}

[[noreturn]] void Answer(int socket, size_t fd_count, size_t reply_bytes) {
  std::vector<UniqueFd> fds;
  for (size_t i = 0; i < fd_count; ++i) {
    fds.emplace_back(open("/dev/null", O_RDONLY | O_CLOEXEC));
  }
  const std::string reply(reply_bytes, 'x');
  const std::vector<int> numbers = Numbers(fds);
  std::array<char, 4096> buffer;
  for (;;) {
    WaitReadable(socket);
    if (!ReceivePacket(socket, absl::MakeSpan(buffer), 0).ok()) _exit(0);
    if (!SendPacket(socket, reply, numbers).ok()) _exit(1);
  }
}

}  // namespace

Samples RawRoundTrips(size_t rounds, size_t fds, size_t reply_bytes,
                      useconds_t pause_microseconds) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
    Die("socketpair");
  }
  UniqueFd ours(pair[0]);
  UniqueFd theirs(pair[1]);
  const pid_t child = fork();
  if (child < 0) Die("fork");
  if (child == 0) {
    ours.reset();
    Answer(theirs.get(), fds, reply_bytes);
  }
  theirs.reset();
  const std::string request(64, 'x');
  std::vector<char> buffer(kMaxFrameBytes);
  Samples samples;
  for (size_t i = 0; i < rounds; ++i) {
    if (pause_microseconds != 0) usleep(pause_microseconds);
    samples.Measure([&] {
      if (!SendPacket(ours.get(), request, {}).ok()) Die("send");
      WaitReadable(ours.get());
      // The fds that came are closed on leaving, as part of the trip.
      if (!ReceivePacket(ours.get(), absl::MakeSpan(buffer), 16).ok()) {
        Die("receive");
      }
    });
  }
  ours.reset();
  waitpid(child, nullptr, 0);
  return samples;
}

Samples LoadsByRoot(const std::filesystem::path& object, size_t rounds) {
  std::ifstream file(object, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), {});
  libbpf_set_print(nullptr);
  Samples samples;
  for (size_t i = 0; i < rounds; ++i) {
    bpf_object* loaded = nullptr;
    samples.Measure([&] {
      loaded = bpf_object__open_mem(bytes.data(), bytes.size(), nullptr);
      if (loaded == nullptr || bpf_object__load(loaded) < 0) {
        Die("loading as root");
      }
    });
    bpf_object__close(loaded);
  }
  return samples;
}

}  // namespace bpfgrant::bench
