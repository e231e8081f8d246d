#include "tests/wire/raw_peer.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <thread>

#include "gtest/gtest.h"
#include "proto/wire/limits.h"

namespace bpfgrant::broker_test {
namespace {

constexpr uid_t kNobody = 65534;

using Clock = std::chrono::steady_clock;

// Waits for `events` on `socket`; false when `deadline` has passed.
bool WaitFor(int socket, short events, Clock::time_point deadline) {
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
    pollfd watch{socket, events, 0};
    const int ready =
        poll(&watch, 1,
             static_cast<int>(
                 std::max<std::chrono::milliseconds::rep>(left.count(), 0)));
    if (ready >= 0 || errno != EINTR) return ready > 0;
  }
}

int Connect(int socket, const std::string& address) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  std::memcpy(name.sun_path, address.data(), address.size());
  const auto length =
      static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address.size());
  return connect(socket, reinterpret_cast<sockaddr*>(&name), length) == 0
             ? 0
             : errno;
}

// The kernel asks the calling thread alone who it is, and libc's setresuid
// would change them all.
int ConnectAs(int socket, const std::string& address, User user) {
  int error = 0;
  std::thread([&] {
    if (syscall(SYS_setresgid, user.gid, user.gid, user.gid) < 0 ||
        syscall(SYS_setresuid, user.uid, user.uid, user.uid) < 0) {
      error = errno;
      return;
    }
    error = Connect(socket, address);
  }).join();
  return error;
}

}  // namespace

Control& Control::Rights(absl::Span<const int> fds) {
  return Raw(
      SOL_SOCKET, SCM_RIGHTS,
      {reinterpret_cast<const char*>(fds.data()), fds.size() * sizeof(int)});
}

Control& Control::From(const Credentials& credentials) {
  const ucred raw{credentials.pid, credentials.uid, credentials.gid};
  return Raw(SOL_SOCKET, SCM_CREDENTIALS,
             {reinterpret_cast<const char*>(&raw), sizeof(raw)});
}

Control& Control::Raw(int level, int type, std::string_view data) {
  cmsghdr header{};
  header.cmsg_level = level;
  header.cmsg_type = type;
  header.cmsg_len = CMSG_LEN(data.size());
  std::string message(CMSG_SPACE(data.size()), '\0');
  std::memcpy(message.data(), &header, sizeof(header));
  if (!data.empty())
    std::memcpy(message.data() + CMSG_LEN(0), data.data(), data.size());
  bytes_ += message;
  return *this;
}

User Self() { return {getuid(), getgid()}; }

User Ordinary() { return getuid() == 0 ? User{kNobody, kNobody} : Self(); }

RawPeer::RawPeer(const std::string& address, User user)
    : socket_(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)) {
  const bool other = user.uid != getuid() || user.gid != getgid();
  const int error = other ? ConnectAs(socket_.get(), address, user)
                          : Connect(socket_.get(), address);
  if (other) says_ = Credentials{getpid(), user.uid, user.gid};
  if (error != 0) {
    ADD_FAILURE() << "connect: " << std::strerror(error);
    socket_.reset();
  }
}

int RawPeer::SendMessage(std::string_view bytes, std::string_view control,
                         int flags) {
  iovec vector{const_cast<char*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  if (!control.empty()) {
    message.msg_control = const_cast<char*>(control.data());
    message.msg_controllen = control.size();
  }
  const auto deadline = Clock::now() + kPatience;
  for (;;) {
    if (sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT | flags) >=
        0) {
      return 0;
    }
    const int error = errno;
    if (error == EINTR) continue;
    if (error != EAGAIN || (flags & MSG_DONTWAIT) != 0 ||
        !WaitFor(socket_.get(), POLLOUT, deadline)) {
      return error;
    }
  }
}

int RawPeer::SendWith(std::string_view bytes, const Control& control) {
  return SendMessage(bytes, control.bytes(), 0);
}

int RawPeer::Send(std::string_view bytes, absl::Span<const int> fds) {
  Control control;
  if (!fds.empty()) control.Rights(fds);
  if (says_.has_value()) control.From(*says_);
  return SendWith(bytes, control);
}

int RawPeer::TrySend(std::string_view bytes) {
  Control control;
  if (says_.has_value()) control.From(*says_);
  return SendMessage(bytes, control.bytes(), MSG_DONTWAIT);
}

std::string RawPeer::Prepare(v1::ClientFrame& frame) {
  if (frame.request() == 0) frame.set_request(last_request_ + 1);
  last_request_ = frame.request();
  return frame.SerializeAsString();
}

int RawPeer::Send(v1::ClientFrame frame, absl::Span<const int> fds) {
  return Send(std::string_view(Prepare(frame)), fds);
}

int RawPeer::TrySend(v1::ClientFrame frame) {
  return TrySend(std::string_view(Prepare(frame)));
}

RawPeer::Received RawPeer::Receive(std::chrono::milliseconds patience,
                                   size_t control_bytes) {
  using What = Received::What;
  Received received{What::kNothing, {}, {}};
  if (!WaitFor(socket_.get(), POLLIN, Clock::now() + patience)) {
    return received;
  }
  std::vector<char> bytes(kMaxFrameBytes);
  std::vector<char> control(control_bytes);
  iovec vector{bytes.data(), bytes.size()};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t length =
      recvmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (length <= 0) {
    if (length == 0 || errno != EAGAIN) received.what = What::kClosed;
    return received;
  }
  received.what = What::kFrame;
  received.truncated = (message.msg_flags & MSG_CTRUNC) != 0;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
      received.fds.emplace_back(fd);
    }
  }
  EXPECT_TRUE(
      received.frame.ParseFromArray(bytes.data(), static_cast<int>(length)));
  return received;
}

RawPeer::Received RawPeer::ReceiveReply() {
  for (;;) {
    Received received = Receive();
    const bool event = received.what == Received::What::kFrame &&
                       received.frame.request() == 0 &&
                       !received.frame.has_refusal();
    if (!event) return received;
  }
}

bool RawPeer::SeesEnd(std::chrono::milliseconds patience) {
  const auto deadline = Clock::now() + patience;
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
    const Received received =
        Receive(std::max(left, std::chrono::milliseconds(0)));
    if (received.what != Received::What::kFrame) return received.closed();
  }
}

RawPeer::Received RawPeer::Call(v1::ClientFrame frame,
                                absl::Span<const int> fds) {
  const int error = Send(std::move(frame), fds);
  if (error != 0) {
    EXPECT_TRUE(error == EPIPE || error == ECONNRESET) << std::strerror(error);
    return {Received::What::kClosed, {}, {}};
  }
  return ReceiveReply();
}

RawPeer::Received RawPeer::Hello() {
  Received received = Call(HelloFrame());
  hello_ = received.frame.hello();
  return received;
}

RawPeer::Received RawPeer::Acquire(const std::string& program) {
  return Call(AcquireFrame(program));
}

v1::ClientFrame HelloFrame() {
  v1::ClientFrame frame;
  frame.mutable_hello()->set_version(v1::PROTOCOL_VERSION_1);
  return frame;
}

v1::ClientFrame AcquireFrame(const std::string& program) {
  v1::ClientFrame frame;
  frame.mutable_acquire()->set_program(program);
  frame.mutable_acquire()->set_interface(program + "/1");
  frame.mutable_acquire()->set_delivery(v1::DELIVERY_PROGRAM);
  return frame;
}

}  // namespace bpfgrant::broker_test
