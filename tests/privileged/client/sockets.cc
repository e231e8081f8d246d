// Sockets of the client's own: attaching, detaching, and traffic.

#include <arpa/inet.h>
#include <fcntl.h>
#include <liburing.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/bpfgrant/uring.h"
#include "proto/wire/message_socket.h"
#include "tests/privileged/client/commands.h"

namespace bpfgrant::test {
namespace {

UniqueFd MakeSocket(int family, int type) {
  return UniqueFd(socket(family, type | SOCK_CLOEXEC, 0));
}

// Something that an attachment might be asked for.
UniqueFd Open(const std::string& kind) {
  if (kind == "tcp") return MakeSocket(AF_INET, SOCK_STREAM);
  if (kind == "udp") return MakeSocket(AF_INET, SOCK_DGRAM);
  if (kind == "unix-datagram") return MakeSocket(AF_UNIX, SOCK_DGRAM);
  if (kind == "unix-stream") return MakeSocket(AF_UNIX, SOCK_STREAM);
  if (kind == "file") {
    return UniqueFd(open("/proc/self/status", O_RDONLY | O_CLOEXEC));
  }
  if (kind == "path-only") {
    return UniqueFd(open("/proc/self/status", O_PATH | O_CLOEXEC));
  }
  int ends[2];
  if (kind == "pipe" && pipe2(ends, O_CLOEXEC) == 0) {
    close(ends[1]);
    return UniqueFd(ends[0]);
  }
  throw std::invalid_argument("no such kind of fd");
}

std::string AddSocket(Client& client, Traffic traffic) {
  client.sockets.push_back(std::move(traffic));
  return absl::StrCat("ok ", client.sockets.size() - 1);
}

std::string OpenOne(Client& client, const Words& words) {
  UniqueFd fd = Open(words.at(0));
  return fd.valid() ? AddSocket(client, {std::move(fd), {}}) : Errno();
}

// A receiver on loopback, and a sender connected to it. With "group" the
// receiver may share its port: what a reuseport program needs.
std::string OpenUdp(Client& client, const Words& words) {
  Traffic pair{Open("udp"), Open("udp")};
  const int on = 1;
  if (!words.empty()) {
    setsockopt(pair.socket.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  auto* raw = reinterpret_cast<sockaddr*>(&address);
  socklen_t length = sizeof(address);
  if (bind(pair.socket.get(), raw, length) < 0 ||
      getsockname(pair.socket.get(), raw, &length) < 0 ||
      connect(pair.sender.get(), raw, length) < 0) {
    return Errno();
  }
  return AddSocket(client, std::move(pair));
}

// An fd that the test gave: adopt FD
std::string Adopt(Client& client, const Words& words) {
  return AddSocket(client,
                   {UniqueFd(fcntl(static_cast<int>(Number(words.at(0))),
                                   F_DUPFD_CLOEXEC, 0)),
                    {}});
}

// copy GRANT HANDLE: another fd of it, which is kept among the sockets.
std::string CopyHandle(Client& client, const Words& words) {
  UniqueFd copy(
      fcntl(HandleOf(client, words.at(0), words.at(1)), F_DUPFD_CLOEXEC, 0));
  return copy.valid() ? AddSocket(client, {std::move(copy), {}}) : Errno();
}

// in-flight GRANT HANDLE: on its way between two sockets that nobody reads.
std::string PutInFlight(Client& client, const Words& words) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) {
    return Errno();
  }
  Traffic pair{UniqueFd(ends[0]), UniqueFd(ends[1])};
  const int fd = HandleOf(client, words.at(0), words.at(1));
  const absl::Status sent =
      SendPacket(pair.sender.get(), "x", absl::MakeConstSpan(&fd, 1));
  return sent.ok() ? AddSocket(client, std::move(pair)) : Describe(sent);
}

// close SOCKET: both ends of what goes by that number.
std::string Close(Client& client, const Words& words) {
  client.sockets.at(Number(words.at(0))) = Traffic();
  return "ok";
}

std::string SetOption(int socket, int option, int value) {
  return Outcome(setsockopt(socket, SOL_SOCKET, option, &value, sizeof(value)));
}

// attach GRANT SOCKET [reuseport]
std::string Attach(Client& client, const Words& words) {
  return SetOption(SocketAt(client, words.at(1)),
                   words.size() > 2 ? SO_ATTACH_REUSEPORT_EBPF : SO_ATTACH_BPF,
                   HandleOf(client, words.at(0), "program"));
}

// The same through a ring of its own.
std::string AttachByRing(Client& client, const Words& words) {
  io_uring ring;
  if (const int error = io_uring_queue_init(4, &ring, 0); error < 0) {
    errno = -error;
    return Errno();
  }
  const int program = HandleOf(client, words.at(0), "program");
  PrepareAttach(io_uring_get_sqe(&ring), SocketAt(client, words.at(1)),
                &program, SocketHook::kFilter);
  io_uring_submit(&ring);
  __kernel_timespec timeout{10, 0};
  io_uring_cqe* completion = nullptr;
  const int error = io_uring_wait_cqe_timeout(&ring, &completion, &timeout);
  errno = error < 0 ? -error : std::max(0, -completion->res);
  const std::string outcome = errno == 0 ? "ok" : Errno();
  io_uring_queue_exit(&ring);
  return outcome;
}

size_t ReceiveAll(int socket, size_t count) {
  size_t received = 0;
  char byte;
  while (received < count) {
    // Long enough for a busy machine to deliver what it will deliver.
    pollfd watch{socket, POLLIN, 0};
    if (poll(&watch, 1, 500) <= 0) break;
    if (recv(socket, &byte, sizeof(byte), MSG_DONTWAIT) >= 0) ++received;
  }
  return received;
}

size_t CountSamples(RingBuffer& samples) {
  const auto count = samples.Consume([](auto) {});
  if (!count.ok()) throw std::runtime_error(count.status().ToString());
  return *count;
}

// traffic SOCKET COUNT [GRANT]: "ok RECEIVED SAMPLED", without those that were
// sampled before.
std::string SendTraffic(Client& client, const Words& words) {
  const Traffic& pair = client.sockets.at(Number(words.at(0)));
  RingBuffer* samples =
      words.size() > 2 ? client.grants.at(Number(words.at(2))).samples.get()
                       : nullptr;
  if (samples != nullptr) CountSamples(*samples);
  const size_t count = Number(words.at(1));
  for (size_t i = 0; i < count; ++i) {
    if (send(pair.sender.get(), "x", 1, 0) != 1) return Errno();
  }
  const size_t received = ReceiveAll(pair.socket.get(), count);
  return absl::StrCat("ok ", received, " ",
                      samples == nullptr ? 0 : CountSamples(*samples));
}

// Sends one datagram, and waits until poll(2) tells of its sample.
std::string WaitForSample(Client& client, const Words& words) {
  const Traffic& pair = client.sockets.at(Number(words.at(0)));
  RingBuffer& samples = *client.grants.at(Number(words.at(1))).samples;
  CountSamples(samples);
  if (send(pair.sender.get(), "x", 1, 0) != 1) return Errno();
  pollfd watch{samples.fd(), POLLIN, 0};
  const int ready = poll(&watch, 1, 10'000);
  if (ready < 0) return Errno();
  ReceiveAll(pair.socket.get(), 1);
  return absl::StrCat("ok ", CountSamples(samples));
}

}  // namespace

void AddSocketCommands(Commands& commands) {
  commands["open"] = OpenOne;
  commands["udp"] = OpenUdp;
  commands["adopt"] = Adopt;
  commands["copy"] = CopyHandle;
  commands["in-flight"] = PutInFlight;
  commands["close"] = Close;
  commands["attach"] = Attach;
  commands["attach-by-ring"] = AttachByRing;
  commands["detach"] = [](Client& client, const Words& words) {
    return SetOption(SocketAt(client, words.at(0)), SO_DETACH_BPF, 0);
  };
  commands["lock"] = [](Client& client, const Words& words) {
    return SetOption(SocketAt(client, words.at(0)), SO_LOCK_FILTER, 1);
  };
  commands["unlock"] = [](Client& client, const Words& words) {
    return SetOption(SocketAt(client, words.at(0)), SO_LOCK_FILTER, 0);
  };
  commands["traffic"] = SendTraffic;
  commands["wait-for-sample"] = WaitForSample;
}

}  // namespace bpfgrant::test
