// A daemon that says what each test has it say, and a connection to it.

#ifndef TESTS_UNIT_FAKE_DAEMON_H_
#define TESTS_UNIT_FAKE_DAEMON_H_

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/bpfgrant/connection.h"
#include "gtest/gtest.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"
#include "proto/wire/message_socket.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant {

using std::chrono::milliseconds;

inline size_t CountOpenFds() {
  DIR* directory = opendir("/proc/self/fd");
  if (directory == nullptr) return 0;
  size_t count = 0;
  while (const dirent* entry = readdir(directory)) {
    if (entry->d_name[0] != '.') ++count;
  }
  closedir(directory);
  return count - 1;  // the directory's own
}

inline std::vector<UniqueFd> Files(size_t count) {
  std::vector<UniqueFd> fds;
  for (size_t i = 0; i < count; ++i) {
    fds.emplace_back(open("/dev/null", O_RDONLY | O_CLOEXEC));
  }
  return fds;
}

// The other end of the socket, in a thread of its own. Each step waits at most
// five seconds and reports a failure of the test when they are over.
class FakeDaemon {
 public:
  struct Request {
    v1::ClientFrame frame;
    std::vector<UniqueFd> fds;
    std::optional<Credentials> credentials;
  };

  explicit FakeDaemon(UniqueFd socket) : socket_(std::move(socket)) {
    const int on = 1;
    EXPECT_EQ(
        setsockopt(socket_.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
  }
  ~FakeDaemon() { Join(); }

  void Run(std::function<void()> script) {
    Join();
    thread_ = std::thread(std::move(script));
  }
  void Join() {
    if (thread_.joinable()) thread_.join();
  }

  Request Next() {
    Request request;
    pollfd watch{socket_.get(), POLLIN, 0};
    if (poll(&watch, 1, 5000) != 1) {
      ADD_FAILURE() << "the client sent nothing";
      return request;
    }
    std::vector<char> buffer(kMaxFrameBytes);
    absl::StatusOr<Packet> packet =
        ReceivePacket(socket_.get(), absl::MakeSpan(buffer), kMaxFdsFromClient);
    if (!packet.ok()) {
      ADD_FAILURE() << "from the client: " << packet.status();
      return request;
    }
    EXPECT_TRUE(request.frame.ParseFromArray(
        packet->bytes.data(), static_cast<int>(packet->bytes.size())));
    EXPECT_GT(request.frame.request(), last_request_) << "ids must grow";
    last_request_ = request.frame.request();
    request.fds = std::move(packet->fds);
    request.credentials = packet->credentials;
    return request;
  }

  // Whether the client says nothing more within `time`; its end is nothing.
  bool Silent(milliseconds time) {
    pollfd watch{socket_.get(), POLLIN, 0};
    if (poll(&watch, 1, static_cast<int>(time.count())) == 0) return true;
    std::vector<char> buffer(kMaxFrameBytes);
    return absl::IsOutOfRange(
        ReceivePacket(socket_.get(), absl::MakeSpan(buffer), kMaxFdsFromClient)
            .status());
  }

  void Send(const v1::ServerFrame& frame,
            const std::vector<UniqueFd>& fds = {}) {
    const absl::Status sent =
        SendPacket(socket_.get(), frame.SerializeAsString(), Numbers(fds));
    EXPECT_TRUE(sent.ok()) << sent;
  }
  void SendBytes(std::string_view bytes) {
    const absl::Status sent = SendPacket(socket_.get(), bytes, {});
    EXPECT_TRUE(sent.ok()) << sent;
  }
  void Close() { socket_.reset(); }

  void AnswerHello(uint64_t request) {
    v1::ServerFrame frame;
    frame.set_request(request);
    v1::HelloReply& hello = *frame.mutable_hello();
    hello.set_version(v1::PROTOCOL_VERSION_1);
    hello.set_server("fake");
    hello.set_session(7);
    hello.set_token(std::string(kSessionTokenBytes, 't'));
    hello.set_uid(1234);
    Send(frame);
  }

  void Refuse(uint64_t request, v1::Reason reason, const std::string& message) {
    v1::ServerFrame frame;
    frame.set_request(request);
    frame.mutable_refusal()->set_reason(reason);
    frame.mutable_refusal()->set_message(message);
    Send(frame);
  }

  void SendEnd(uint64_t grant, v1::Reason reason) {
    v1::ServerFrame frame;
    v1::Event& event = *frame.mutable_event();
    event.set_type(v1::Event::TYPE_GRANT_ENDED);
    event.mutable_grant()->set_grant(grant);
    event.set_reason(reason);
    Send(frame);
  }

  // An AcquireReply with `announced` handles and `count` fds beside it.
  void AnswerAcquire(uint64_t request, uint64_t grant, size_t announced,
                     size_t count) {
    v1::ServerFrame frame;
    frame.set_request(request);
    v1::AcquireReply& reply = *frame.mutable_acquire();
    reply.set_grant(grant);
    reply.set_delivery(v1::DELIVERY_PROGRAM);
    for (size_t i = 0; i < announced; ++i) {
      v1::Handle& handle = *reply.add_handle();
      handle.set_kind(i == 0 ? v1::HANDLE_KIND_PROGRAM
                             : v1::HANDLE_KIND_RING_BUFFER);
      handle.set_name(i == 0 ? "program" : "map" + std::to_string(i));
    }
    Send(frame, Files(count));
  }

 private:
  UniqueFd socket_;
  uint64_t last_request_ = 0;
  std::thread thread_;
};

class ClientConnectionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fds_before_ = CountOpenFds();
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    here_ = UniqueFd(ends[0]);
    daemon_.emplace(UniqueFd(ends[1]));
  }

  void TearDown() override {
    connection_.reset();
    daemon_.reset();
    here_.reset();
    EXPECT_EQ(CountOpenFds(), fds_before_) << "fds leaked";
  }

  absl::Status Open(milliseconds timeout = milliseconds(5000)) {
    auto opened =
        Connection::FromSocket(std::move(here_), {.timeout = timeout});
    if (!opened.ok()) return opened.status();
    connection_.emplace(*std::move(opened));
    return absl::OkStatus();
  }

  // An open session, the daemon's thread at rest.
  void OpenSession(milliseconds timeout = milliseconds(5000)) {
    daemon_->Run(
        [&] { daemon_->AnswerHello(daemon_->Next().frame.request()); });
    const absl::Status opened = Open(timeout);
    daemon_->Join();
    ASSERT_TRUE(opened.ok()) << opened;
  }

  absl::StatusOr<Grant> Acquire(uint64_t grant, size_t handles = 2) {
    daemon_->Run([this, grant, handles] {
      daemon_->AnswerAcquire(daemon_->Next().frame.request(), grant, handles,
                             handles);
    });
    auto acquired = connection_->Acquire({.program = "p"});
    daemon_->Join();
    return acquired;
  }

  size_t fds_before_ = 0;
  UniqueFd here_;
  std::optional<FakeDaemon> daemon_;
  std::optional<Connection> connection_;
};

}  // namespace bpfgrant

#endif  // TESTS_UNIT_FAKE_DAEMON_H_
