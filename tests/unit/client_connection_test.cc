// Connection and Grant against a daemon that says what each test has it say.

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

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
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"
#include "proto/wire/message_socket.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

size_t CountOpenFds() {
  DIR* directory = opendir("/proc/self/fd");
  if (directory == nullptr) return 0;
  size_t count = 0;
  while (const dirent* entry = readdir(directory)) {
    if (entry->d_name[0] != '.') ++count;
  }
  closedir(directory);
  return count - 1;  // the directory's own
}

std::vector<UniqueFd> Files(size_t count) {
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

TEST_F(ClientConnectionTest, SaysHelloAndWhoItIs) {
  daemon_->Run([&] {
    const auto hello = daemon_->Next();
    EXPECT_EQ(hello.frame.hello().version(), v1::PROTOCOL_VERSION_1);
    EXPECT_LE(hello.frame.hello().client().size(), kMaxClientNameBytes);
    EXPECT_THAT(hello.fds, IsEmpty());
    EXPECT_EQ(hello.credentials, (Credentials{getpid(), geteuid(), getegid()}));
    daemon_->AnswerHello(hello.frame.request());
  });
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(connection_->session().session(), 7u);
  EXPECT_EQ(connection_->session().uid(), 1234u);
  EXPECT_THAT(connection_->session().token(), SizeIs(kSessionTokenBytes));
}

TEST_F(ClientConnectionTest, AnswersAChallenge) {
  const std::string nonce(kNonceBytes, 'n');
  daemon_->Run([&] {
    const uint64_t hello = daemon_->Next().frame.request();
    v1::ServerFrame challenge;
    challenge.mutable_challenge()->set_nonce(nonce);
    daemon_->Send(challenge);
    const auto identify = daemon_->Next();
    EXPECT_EQ(identify.frame.identify().nonce(), nonce);
    EXPECT_EQ(identify.credentials,
              (Credentials{getpid(), geteuid(), getegid()}));
    daemon_->AnswerHello(hello);
  });
  EXPECT_TRUE(Open().ok());
}

TEST_F(ClientConnectionTest, ReportsARefusedHello) {
  daemon_->Run([&] {
    daemon_->Refuse(daemon_->Next().frame.request(),
                    v1::REASON_PROTOCOL_VERSION, "too old");
  });
  const absl::Status opened = Open();
  EXPECT_EQ(ReasonOf(opened), v1::REASON_PROTOCOL_VERSION);
  EXPECT_THAT(std::string(opened.message()), HasSubstr("too old"));
}

TEST_F(ClientConnectionTest, ReportsARefusalOfTheChallenge) {
  daemon_->Run([&] {
    daemon_->Next();
    v1::ServerFrame challenge;
    challenge.mutable_challenge()->set_nonce(std::string(kNonceBytes, 'n'));
    daemon_->Send(challenge);
    daemon_->Refuse(daemon_->Next().frame.request(), v1::REASON_PEER_CHANGED,
                    "somebody else");
  });
  EXPECT_EQ(ReasonOf(Open()), v1::REASON_PEER_CHANGED);
}

TEST_F(ClientConnectionTest, ReportsBeingTurnedAway) {
  daemon_->Run([&] {
    daemon_->Next();
    daemon_->Refuse(0, v1::REASON_TOO_MANY_SESSIONS, "full");
    daemon_->Close();
  });
  EXPECT_EQ(ReasonOf(Open()), v1::REASON_TOO_MANY_SESSIONS);
}

TEST_F(ClientConnectionTest, ADaemonThatDoesNotAnswerTimesOut) {
  EXPECT_TRUE(absl::IsDeadlineExceeded(Open(milliseconds(50))));
}

TEST_F(ClientConnectionTest, ADaemonThatCloses) {
  daemon_->Run([&] {
    daemon_->Next();
    daemon_->Close();
  });
  EXPECT_TRUE(absl::IsUnavailable(Open()));
}

TEST_F(ClientConnectionTest, AFrameThatDoesNotParseEndsIt) {
  OpenSession();
  daemon_->Run([&] {
    daemon_->Next();
    daemon_->SendBytes("\xff\xff\xff");
  });
  EXPECT_FALSE(connection_->Status().ok());
  EXPECT_TRUE(absl::IsUnavailable(connection_->Status().status()));
}

TEST_F(ClientConnectionTest, AcquiresWithTheFdsInTheirOrder) {
  OpenSession();
  daemon_->Run([&] {
    const auto request = daemon_->Next();
    EXPECT_EQ(request.frame.acquire().program(), "packet_sampler");
    EXPECT_EQ(request.frame.acquire().interface(), "packet_sampler/1");
    EXPECT_EQ(request.frame.acquire().interface_hash(), "abc");
    EXPECT_THAT(request.frame.acquire().handle(), ElementsAre("samples"));
    EXPECT_EQ(request.frame.acquire().delivery(), v1::DELIVERY_ANY);
    EXPECT_THAT(request.fds, SizeIs(1));
    daemon_->AnswerAcquire(request.frame.request(), 42, 3, 3);
  });
  const auto socket = Files(1);
  auto grant = connection_->Acquire({.program = "packet_sampler",
                                     .interface = "packet_sampler/1",
                                     .interface_hash = "abc",
                                     .handles = {"samples"},
                                     .delivery = v1::DELIVERY_ANY,
                                     .target = socket[0].get()});
  ASSERT_TRUE(grant.ok()) << grant.status();
  EXPECT_EQ(grant->id(), 42u);
  EXPECT_FALSE(grant->ended());
  ASSERT_THAT(grant->handles(), SizeIs(3));
  for (const Grant::Handle& handle : grant->handles()) {
    EXPECT_NE(fcntl(handle.fd.get(), F_GETFD) & FD_CLOEXEC, 0);
  }
  EXPECT_EQ(grant->program_fd(), grant->handles()[0].fd.get());
  ASSERT_TRUE(grant->Find("map2").ok());
  EXPECT_EQ((*grant->Find("map2"))->fd.get(), grant->handles()[2].fd.get());
  EXPECT_TRUE(absl::IsNotFound(grant->Find("map3").status()));
  EXPECT_GE(fcntl(socket[0].get(), F_GETFD), 0) << "the caller's own";
}

TEST_F(ClientConnectionTest, ARefusalCarriesItsReasonAndVerdict) {
  OpenSession();
  daemon_->Run([&] {
    v1::ServerFrame frame;
    frame.set_request(daemon_->Next().frame.request());
    frame.mutable_refusal()->set_reason(v1::REASON_DENIED_BY_RULE);
    frame.mutable_refusal()->set_message("no");
    frame.mutable_refusal()->mutable_verdict()->set_rule("nobody");
    daemon_->Send(frame);
  });
  const auto grant = connection_->Acquire({.program = "p"});
  EXPECT_EQ(ReasonOf(grant.status()), v1::REASON_DENIED_BY_RULE);
  EXPECT_EQ(RefusalOf(grant.status()).verdict().rule(), "nobody");
  // A refusal changes nothing about the connection.
  EXPECT_TRUE(Acquire(1).ok());
}

TEST_F(ClientConnectionTest, AnEventBeforeTheAnswerIsNotTheAnswer) {
  OpenSession();
  auto grant = Acquire(42);
  ASSERT_TRUE(grant.ok());
  std::vector<uint64_t> ended;
  connection_->OnEvent(
      [&](const v1::Event& event) { ended.push_back(event.grant().grant()); });
  daemon_->Run([&] {
    const uint64_t request = daemon_->Next().frame.request();
    daemon_->SendEnd(42, v1::REASON_REVOKED);
    v1::ServerFrame frame;
    frame.set_request(request);
    frame.mutable_status()->set_version("9");
    daemon_->Send(frame);
  });
  const auto status = connection_->Status();
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_EQ(status->version(), "9");
  EXPECT_TRUE(grant->ended());
  EXPECT_EQ(grant->end_reason(), v1::REASON_REVOKED);
  EXPECT_THAT(ended, ElementsAre(42));
}

TEST_F(ClientConnectionTest, AnAnswerOfAnotherKindIsAnError) {
  OpenSession();
  daemon_->Run([&] {
    v1::ServerFrame frame;
    frame.set_request(daemon_->Next().frame.request());
    frame.mutable_reload();
    daemon_->Send(frame);
  });
  EXPECT_TRUE(absl::IsInternal(connection_->Status().status()));
}

TEST_F(ClientConnectionTest, AnAnswerToAnotherRequestIsNotTaken) {
  OpenSession();
  daemon_->Run([&] {
    const uint64_t request = daemon_->Next().frame.request();
    v1::ServerFrame frame;
    frame.set_request(request - 1);
    frame.mutable_status()->set_version("wrong");
    daemon_->Send(frame);
    frame.set_request(request);
    frame.mutable_status()->set_version("right");
    daemon_->Send(frame);
  });
  const auto status = connection_->Status();
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_EQ(status->version(), "right");
}

TEST_F(ClientConnectionTest, ALateGrantIsGivenBackAndItsFdsClosed) {
  OpenSession(milliseconds(50));
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      connection_->Acquire({.program = "p"}).status()));
  const size_t fds = CountOpenFds();
  // Its request still waits to be read here.
  daemon_->AnswerAcquire(daemon_->Next().frame.request(), 42, 3, 3);
  EXPECT_TRUE(absl::IsDeadlineExceeded(connection_->Status().status()));
  EXPECT_EQ(CountOpenFds(), fds);
  EXPECT_TRUE(daemon_->Next().frame.has_status());
  EXPECT_EQ(daemon_->Next().frame.release().grant(), 42u);
}

// How many fds a reply announces, and how many come.
class ClientWrongFdsTest
    : public ClientConnectionTest,
      public ::testing::WithParamInterface<std::pair<size_t, size_t>> {};

TEST_P(ClientWrongFdsTest, MakeNoGrantAndEndTheSession) {
  const auto [announced, count] = GetParam();
  OpenSession();
  const size_t fds = CountOpenFds();
  daemon_->Run([&, announced = announced, count = count] {
    daemon_->AnswerAcquire(daemon_->Next().frame.request(), 42, announced,
                           count);
  });
  EXPECT_TRUE(
      absl::IsInternal(connection_->Acquire({.program = "p"}).status()));
  daemon_->Join();
  // What the session holds cannot be told any more, so it is over.
  EXPECT_LT(CountOpenFds(), fds);
}

INSTANTIATE_TEST_SUITE_P(Counts, ClientWrongFdsTest,
                         ::testing::Values(std::pair<size_t, size_t>(2, 3),
                                           std::pair<size_t, size_t>(3, 2),
                                           std::pair<size_t, size_t>(1, 0)));

TEST_F(ClientConnectionTest, MoreFdsThanAnyGrantHasAreClosed) {
  OpenSession();
  const size_t fds = CountOpenFds();
  daemon_->Run([&] {
    daemon_->AnswerAcquire(daemon_->Next().frame.request(), 42,
                           kMaxFdsPerGrant + 1, kMaxFdsPerGrant + 1);
  });
  EXPECT_FALSE(connection_->Acquire({.program = "p"}).ok());
  daemon_->Join();
  EXPECT_LE(CountOpenFds(), fds);
}

TEST_F(ClientConnectionTest, ADestroyedGrantIsReleasedWithoutWaiting) {
  OpenSession();
  {
    auto grant = Acquire(42);
    ASSERT_TRUE(grant.ok());
  }
  EXPECT_EQ(daemon_->Next().frame.release().grant(), 42u);
}

TEST_F(ClientConnectionTest, AMovedGrantIsReleasedOnce) {
  OpenSession();
  auto first = Acquire(42);
  auto second = Acquire(43);
  ASSERT_TRUE(first.ok() && second.ok());
  *first = *std::move(second);
  EXPECT_EQ(daemon_->Next().frame.release().grant(), 42u);
  EXPECT_EQ(first->id(), 43u);
  EXPECT_TRUE(daemon_->Silent(milliseconds(20)));
}

TEST_F(ClientConnectionTest, ReleaseWaitsForTheAnswer) {
  OpenSession();
  auto grant = Acquire(42);
  ASSERT_TRUE(grant.ok());
  daemon_->Run([&] {
    const auto request = daemon_->Next();
    EXPECT_EQ(request.frame.release().grant(), 42u);
    v1::ServerFrame frame;
    frame.set_request(request.frame.request());
    frame.mutable_release();
    daemon_->Send(frame);
  });
  EXPECT_TRUE(grant->Release().ok());
  daemon_->Join();
  EXPECT_THAT(grant->handles(), IsEmpty());
  EXPECT_EQ(ReasonOf(grant->Release()), v1::REASON_UNKNOWN_GRANT);
}

TEST_F(ClientConnectionTest, AnEndedGrantIsNotReleased) {
  OpenSession();
  {
    auto grant = Acquire(42);
    ASSERT_TRUE(grant.ok());
    daemon_->SendEnd(42, v1::REASON_POLICY_CHANGED);
    EXPECT_TRUE(connection_->ProcessEvents().ok());
    EXPECT_EQ(grant->end_reason(), v1::REASON_POLICY_CHANGED);
  }
  EXPECT_TRUE(daemon_->Silent(milliseconds(20)));
}

TEST_F(ClientConnectionTest, ALostConnectionEndsEveryGrant) {
  OpenSession();
  auto grant = Acquire(42);
  ASSERT_TRUE(grant.ok());
  daemon_->Close();
  EXPECT_TRUE(absl::IsUnavailable(connection_->ProcessEvents()));
  EXPECT_EQ(grant->end_reason(), v1::REASON_SESSION_ENDED);
  EXPECT_TRUE(absl::IsUnavailable(connection_->Status().status()));
}

TEST_F(ClientConnectionTest, AGrantThatOutlivesItsConnectionHasEnded) {
  OpenSession();
  auto grant = Acquire(42);
  ASSERT_TRUE(grant.ok());
  connection_.reset();
  EXPECT_EQ(grant->end_reason(), v1::REASON_SESSION_ENDED);
  EXPECT_GE(fcntl(grant->program_fd(), F_GETFD), 0) << "its fds are its own";
}

TEST_F(ClientConnectionTest, ListGoesThroughAllPages) {
  OpenSession();
  daemon_->Run([&] {
    for (const char* name : {"a", "b", "c"}) {
      const auto request = daemon_->Next();
      v1::ServerFrame frame;
      frame.set_request(request.frame.request());
      frame.mutable_list()->add_program()->set_name(name);
      if (*name == 'a') {
        EXPECT_EQ(request.frame.list().after(), "");
      } else {
        EXPECT_EQ(request.frame.list().after(), std::string(1, *name - 1));
      }
      if (*name != 'c') frame.mutable_list()->set_next(name);
      daemon_->Send(frame);
    }
  });
  const auto list = connection_->List();
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_EQ(list->program_size(), 3);
  EXPECT_THAT(list->next(), IsEmpty());
}

TEST_F(ClientConnectionTest, WaitsForEvents) {
  OpenSession();
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      connection_->WaitEvent(milliseconds(10)).status()));
  daemon_->SendEnd(1, v1::REASON_REVOKED);
  daemon_->SendEnd(2, v1::REASON_WITHDRAWN);
  for (const uint64_t grant : {1, 2}) {
    const auto event = connection_->WaitEvent(milliseconds(5000));
    ASSERT_TRUE(event.ok()) << event.status();
    EXPECT_EQ(event->grant().grant(), grant);
  }
}

TEST_F(ClientConnectionTest, ItsFdAnnouncesEvents) {
  OpenSession();
  pollfd watch{connection_->fd(), POLLIN, 0};
  EXPECT_EQ(poll(&watch, 1, 0), 0);
  daemon_->SendEnd(1, v1::REASON_REVOKED);
  EXPECT_EQ(poll(&watch, 1, 1000), 1);
  EXPECT_TRUE(connection_->ProcessEvents().ok());
  EXPECT_EQ(poll(&watch, 1, 0), 0);
}

TEST(ClientConnectTest, SaysWhyItCannotConnect) {
  const std::string nowhere = "/nonexistent/broker.sock";
  const auto missing = Connection::Connect({.path = nowhere});
  EXPECT_TRUE(absl::IsUnavailable(missing.status()));
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr(nowhere));
  EXPECT_TRUE(absl::IsInvalidArgument(
      Connection::Connect({.path = std::string(200, 'x')}).status()));
}

}  // namespace
}  // namespace bpfgrant
