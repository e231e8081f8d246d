#include "tests/privileged/client/broker_socket.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace bpfgrant::test {

void Fail(const char* what) {
  std::perror(what);
  std::exit(1);
}

BrokerSocket::BrokerSocket(const std::string& path)
    : socket_(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  if (connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) <
      0) {
    Fail("connect");
  }
  v1::ClientFrame frame;
  frame.mutable_hello()->set_version(v1::PROTOCOL_VERSION_1);
  token_ = Call(frame).hello().token();
}

void BrokerSocket::Close() {
  if (socket_ >= 0) close(socket_);
  socket_ = -1;
}

uint64_t BrokerSocket::Send(v1::ClientFrame& frame) {
  frame.set_request(++request_);
  const std::string bytes = frame.SerializeAsString();
  if (send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL) < 0) {
    Fail("send");
  }
  return request_;
}

v1::ServerFrame BrokerSocket::Call(v1::ClientFrame& frame) {
  const uint64_t request = Send(frame);
  v1::ServerFrame reply;
  // Id 0: events, which may come between, and the challenge before the Hello
  // is answered, where the kernel has no SO_PEERPIDFD.
  do {
    reply = Receive();
    if (reply.has_challenge()) {
      v1::ClientFrame identify;
      identify.mutable_identify()->set_nonce(reply.challenge().nonce());
      Send(identify);
    }
  } while (reply.request() != request);
  return reply;
}

v1::ServerFrame BrokerSocket::Receive() {
  pollfd watch{socket_, POLLIN, 0};
  if (poll(&watch, 1, 20'000) <= 0) Fail("poll");
  std::vector<char> bytes(64 * 1024);
  alignas(cmsghdr) char control[CMSG_SPACE(32 * sizeof(int))];
  iovec vector{bytes.data(), bytes.size()};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  const ssize_t length = recvmsg(socket_, &message, MSG_CMSG_CLOEXEC);
  if (length <= 0) Fail("recvmsg");
  fds_.clear();
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header != nullptr && header->cmsg_type == SCM_RIGHTS) {
    fds_.resize((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    std::memcpy(fds_.data(), CMSG_DATA(header), fds_.size() * sizeof(int));
  }
  v1::ServerFrame frame;
  frame.ParseFromArray(bytes.data(), static_cast<int>(length));
  return frame;
}

}  // namespace bpfgrant::test
