// The broker socket without the library, so that a client can stop anywhere,
// and let others have its connection.

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "bpfgrant/v1/broker.pb.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"
#include "proto/wire/message_socket.h"
#include "tests/privileged/client/commands.h"

namespace bpfgrant::test {
namespace {

constexpr int kPatienceMs = 20'000;

bool WaitFor(int socket, short events) {
  pollfd watch{socket, events, 0};
  return poll(&watch, 1, kPatienceMs) > 0;
}

std::string RawConnect(Client& client, const Words& words) {
  client.raw = UniqueFd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  client.raw_request = 0;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  words.at(0).copy(address.sun_path, sizeof(address.sun_path) - 1);
  return Outcome(connect(client.raw.get(),
                         reinterpret_cast<sockaddr*>(&address),
                         sizeof(address)));
}

// The session of the library's Connection, without it.
std::string RawTakeOver(Client& client, const Words&) {
  client.raw = UniqueFd(dup(client.connection.value().fd()));
  client.raw_request = 1'000'000;
  return Outcome(client.raw.get());
}

std::string RawSend(Client& client, v1::ClientFrame frame,
                    const std::vector<int>& fds = {}) {
  frame.set_request(++client.raw_request);
  const absl::Status status =
      SendPacket(client.raw.get(), frame.SerializeAsString(), fds);
  return status.ok() ? "ok" : absl::StrCat("failed: ", status.ToString());
}

// "ok CASE FDS", or "closed" when the daemon has ended the connection. Answers
// the challenge that comes first where the kernel has no SO_PEERPIDFD.
std::string RawReceive(Client& client, const Words& words) {
  std::vector<char> buffer(kMaxFrameBytes);
  if (!WaitFor(client.raw.get(), POLLIN)) return "failed: nothing came";
  const auto packet =
      ReceivePacket(client.raw.get(), absl::MakeSpan(buffer), kMaxFdsPerGrant);
  if (!packet.ok()) {
    return absl::IsOutOfRange(packet.status())
               ? "closed"
               : absl::StrCat("failed: ", packet.status().ToString());
  }
  v1::ServerFrame frame;
  frame.ParseFromArray(packet->bytes.data(),
                       static_cast<int>(packet->bytes.size()));
  if (frame.has_challenge()) {
    v1::ClientFrame identify;
    identify.mutable_identify()->set_nonce(frame.challenge().nonce());
    const std::string sent = RawSend(client, identify);
    return sent == "ok" ? RawReceive(client, words) : sent;
  }
  if (frame.has_refusal()) {
    return absl::StrCat("refused ", ReasonName(frame.refusal().reason()));
  }
  return absl::StrCat("ok ", static_cast<int>(frame.body_case()), " ",
                      packet->fds.size());
}

std::string RawHello(Client& client, const Words&) {
  v1::ClientFrame frame;
  frame.mutable_hello()->set_version(v1::PROTOCOL_VERSION_1);
  return RawSend(client, frame);
}

// raw-acquire PROGRAM [SOCKET...]: sends it, with sockets for an attachment.
std::string RawAcquire(Client& client, const Words& words) {
  v1::ClientFrame frame;
  v1::AcquireRequest& request = *frame.mutable_acquire();
  request.set_program(words.at(0));
  request.set_interface(absl::StrCat(words.at(0), "/1"));
  std::vector<int> fds;
  request.set_delivery(v1::DELIVERY_PROGRAM);
  for (size_t i = 1; i < words.size(); ++i) {
    request.set_delivery(v1::DELIVERY_ATTACH);
    fds.push_back(SocketAt(client, words.at(i)));
  }
  return RawSend(client, frame, fds);
}

// raw-resume RESTART [NUMBER | grant=NUMBER]...: the answer to a Resumed; those
// requests are awaited, those grants are held.
std::string RawResume(Client& client, const Words& words) {
  v1::ClientFrame frame;
  frame.mutable_resume()->set_restart(Number(words.at(0)));
  for (size_t i = 1; i < words.size(); ++i) {
    absl::string_view word = words.at(i);
    if (absl::ConsumePrefix(&word, "grant=")) {
      frame.mutable_resume()->add_grant(Number(std::string(word)));
    } else {
      frame.mutable_resume()->add_pending(Number(words.at(i)));
    }
  }
  return RawSend(client, frame);
}

// raw-again NUMBER PROGRAM: an acquire, under that number.
std::string RawAgain(Client& client, const Words& words) {
  const uint64_t last = client.raw_request;
  client.raw_request = Number(words.at(0)) - 1;
  const std::string sent = RawAcquire(client, {words.begin() + 1, words.end()});
  client.raw_request = last;
  return sent;
}

// The number of the last frame.
std::string RawNumber(Client& client, const Words&) {
  return absl::StrCat("ok ", client.raw_request);
}

// Asks for the daemon's status: any call does that a session may make.
std::string RawStatus(Client& client, const Words& words) {
  v1::ClientFrame frame;
  frame.mutable_status();
  const std::string sent = RawSend(client, frame);
  // The end of the connection may be seen by the send already.
  return sent == "ok" ? RawReceive(client, words)
         : sent.find("OUT_OF_RANGE") != std::string::npos ? "closed"
                                                          : sent;
}

// raw-give FD: sends the connection itself to whoever is behind that socket.
std::string RawGive(Client& client, const Words& words) {
  const absl::Status status =
      SendPacket(static_cast<int>(Number(words.at(0))),
                 absl::StrCat(client.raw_request), {{client.raw.get()}});
  return status.ok() ? "ok" : absl::StrCat("failed: ", status.ToString());
}

std::string RawTake(Client& client, const Words& words) {
  const int from = static_cast<int>(Number(words.at(0)));
  char buffer[64];
  if (!WaitFor(from, POLLIN)) return "failed: nothing came";
  auto packet = ReceivePacket(from, absl::MakeSpan(buffer), 1);
  if (!packet.ok() || packet->fds.size() != 1) return "failed: no fd came";
  client.raw_request = Number(std::string(packet->bytes));
  client.raw = std::move(packet->fds.front());
  return "ok";
}

}  // namespace

void AddRawCommands(Commands& commands) {
  commands["raw-connect"] = RawConnect;
  commands["raw-take-over"] = RawTakeOver;
  commands["raw-receive"] = RawReceive;
  commands["raw-hello"] = RawHello;
  commands["raw-acquire"] = RawAcquire;
  commands["raw-number"] = RawNumber;
  commands["raw-resume"] = RawResume;
  commands["raw-again"] = RawAgain;
  commands["raw-status"] = RawStatus;
  commands["raw-give"] = RawGive;
  commands["raw-take"] = RawTake;
}

}  // namespace bpfgrant::test
