// The C library as its callers meet it, through what it exports, with a daemon
// whose answers are written down before they are asked for. protobuf would know
// the messages twice if this linked them: they are written by hand.

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "client/bpfgrant/bpfgrant.h"
#include "gtest/gtest.h"

namespace bpfgrant::test {
namespace {

std::string Varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) {
    bytes += static_cast<char>(value | 0x80);
  }
  return bytes + static_cast<char>(value);
}
std::string Number(uint32_t field, uint64_t value) {
  return Varint(field << 3) + Varint(value);
}
std::string Bytes(uint32_t field, const std::string& bytes) {
  return Varint(field << 3 | 2) + Varint(bytes.size()) + bytes;
}

// Of ServerFrame (broker.proto).
constexpr uint32_t kHello = 2, kAcquire = 4, kRefusal = 15, kEvent = 16;
std::string Frame(uint64_t request, uint32_t kind, const std::string& body) {
  return (request == 0 ? "" : Number(1, request)) + Bytes(kind, body);
}
std::string HelloReply() {
  return Frame(1, kHello,
               Number(1, 1) + Number(3, 77) + Bytes(4, std::string(32, 't')) +
                   Number(5, 1000) + Number(6, 100) + Number(7, 4711));
}
std::string Refusal(uint64_t request, int reason, const std::string& message) {
  return Frame(request, kRefusal,
               Number(1, static_cast<uint64_t>(reason)) + Bytes(2, message));
}

class CApiTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends_), 0);
  }
  void TearDown() override {
    bpfgrant_connection_close(connection_);
    if (ends_[1] >= 0) close(ends_[1]);
  }
  void Answer(const std::string& frame) {
    ASSERT_EQ(send(ends_[1], frame.data(), frame.size(), 0),
              static_cast<ssize_t>(frame.size()));
  }
  void Connect() {
    Answer(HelloReply());
    ASSERT_EQ(bpfgrant_connect_socket(ends_[0], nullptr, &connection_, &error_),
              0)
        << error_.message;
  }
  void HangUp() {
    close(ends_[1]);
    ends_[1] = -1;
  }
  // What an Acquire is answered with.
  int Acquire() {
    bpfgrant_acquire_options options = BPFGRANT_ACQUIRE_OPTIONS_INIT;
    options.program = "sampler";
    options.interface = "sampler/1";
    return bpfgrant_acquire(connection_, &options, &grant_, &error_);
  }

  int ends_[2] = {-1, -1};  // the library's, the daemon's
  bpfgrant_connection* connection_ = nullptr;
  bpfgrant_grant* grant_ = reinterpret_cast<bpfgrant_grant*>(1);
  bpfgrant_error error_ = BPFGRANT_ERROR_INIT;
};

TEST_F(CApiTest, SaysWhoWeAre) {
  Connect();
  bpfgrant_session session = BPFGRANT_SESSION_INIT;
  ASSERT_EQ(bpfgrant_connection_session(connection_, &session), 0);
  EXPECT_EQ(session.session, 77u);
  EXPECT_EQ(session.uid, 1000u);
  EXPECT_EQ(session.gid, 100u);
  EXPECT_EQ(session.pid, 4711u);
  EXPECT_EQ(session.administrator, 0);
  EXPECT_EQ(std::memcmp(session.token, std::string(32, 't').data(), 32), 0);
  EXPECT_EQ(bpfgrant_connection_fd(connection_), ends_[0]);
}

TEST_F(CApiTest, TakesASocketOverInAnyCase) {
  bpfgrant_connect_options options = BPFGRANT_CONNECT_OPTIONS_INIT;
  options.size = 4;
  EXPECT_EQ(bpfgrant_connect_socket(ends_[0], &options, &connection_, &error_),
            -EINVAL);
  EXPECT_EQ(connection_, nullptr);
  EXPECT_EQ(fcntl(ends_[0], F_GETFD), -1);
  EXPECT_EQ(bpfgrant_connect_socket(-1, nullptr, &connection_, &error_),
            -EINVAL);
}

TEST_F(CApiTest, OptionsMayBeOfANewerRelease) {
  struct {
    bpfgrant_connect_options known = BPFGRANT_CONNECT_OPTIONS_INIT;
    uint64_t unknown = 0;
  } newer;
  newer.known.size = sizeof(newer);
  newer.known.path = "/nobody/listens/here";
  EXPECT_EQ(bpfgrant_connect(&newer.known, &connection_, &error_), -ENOTCONN);
  EXPECT_EQ(error_.reason, 0);
  // What this library would not do is not passed over.
  newer.unknown = 1;
  EXPECT_EQ(bpfgrant_connect(&newer.known, &connection_, &error_), -E2BIG);
}

TEST_F(CApiTest, AnErrorHasNumberReasonAndSentence) {
  Connect();
  Answer(Refusal(2, 20, "rule 'no' denies it."));
  EXPECT_EQ(Acquire(), -EACCES);
  EXPECT_EQ(grant_, nullptr);
  EXPECT_EQ(error_.reason, 20);
  EXPECT_STREQ(error_.message, "rule 'no' denies it.");
  EXPECT_STREQ(bpfgrant_reason_name(error_.reason), "denied-by-rule");
  EXPECT_STREQ(bpfgrant_reason_next_step(error_.reason),
               "Ask the administrator about that rule.");
}

// bpfgrant_error(3) promises them.
TEST_F(CApiTest, ReasonsHaveTheirNumbers) {
  Connect();
  const std::vector<std::pair<int, int>> table = {
      {11, EINVAL}, {21, EACCES},     {22, EDQUOT},    {23, EACCES},
      {30, ENOENT}, {31, ENOEXEC},    {32, EPERM},     {33, ENOENT},
      {40, EPERM},  {41, EPERM},      {42, EINVAL},    {48, EAGAIN},
      {50, EIO},    {59, ETIMEDOUT},  {62, ECANCELED}, {65, ENOTCONN},
      {66, EEXIST}, {76, EOPNOTSUPP}, {85, ERANGE},    {88, EAGAIN},
      {90, EIO},    {30000, EIO},
  };
  uint64_t request = 1;
  for (const auto& [reason, number] : table) {
    Answer(Refusal(++request, reason, "no"));
    EXPECT_EQ(Acquire(), -number) << reason;
    EXPECT_EQ(error_.reason, reason);
  }
}

TEST_F(CApiTest, AnErrorIsWrittenAsFarAsThereIsRoom) {
  Connect();
  struct {
    uint32_t size;
    int32_t reason;
    char message[8];
    char guard[8];
  } older = {16, 0, {}, {'g', 'u', 'a', 'r', 'd', 0, 0, 0}};
  bpfgrant_acquire_options options = BPFGRANT_ACQUIRE_OPTIONS_INIT;
  options.program = "sampler";
  // The seventh byte would be the first half of a character.
  Answer(Refusal(2, 22, "123456\xc3\xbc and more"));
  EXPECT_EQ(bpfgrant_acquire(connection_, &options, &grant_,
                             reinterpret_cast<bpfgrant_error*>(&older)),
            -EDQUOT);
  EXPECT_EQ(older.reason, 22);
  EXPECT_STREQ(older.message, "123456");
  EXPECT_STREQ(older.guard, "guard");
  // Nobody has to ask for it, and a size that cannot be is no room.
  Answer(Refusal(3, 22, "no"));
  EXPECT_EQ(bpfgrant_acquire(connection_, &options, &grant_, nullptr), -EDQUOT);
  older.size = 0;
  Answer(Refusal(4, 11, "no"));
  EXPECT_EQ(bpfgrant_acquire(connection_, &options, &grant_,
                             reinterpret_cast<bpfgrant_error*>(&older)),
            -EINVAL);
  EXPECT_EQ(older.reason, 22);
}

TEST_F(CApiTest, NamesOfNoReason) {
  for (const int32_t none : {0, -1, 12, 89, 91, 1 << 30}) {
    EXPECT_EQ(bpfgrant_reason_name(none), nullptr) << none;
    EXPECT_STREQ(bpfgrant_reason_next_step(none), "") << none;
  }
  EXPECT_STREQ(bpfgrant_reason_name(90), "internal");
}

TEST_F(CApiTest, EventsComeInTheirOrder) {
  Connect();
  bpfgrant_event event = BPFGRANT_EVENT_INIT;
  EXPECT_EQ(bpfgrant_connection_next_event(connection_, 0, &event, &error_),
            -ETIMEDOUT);
  const std::string grant = Number(1, 9) + Bytes(2, "sampler") + Number(6, 5);
  Answer(Frame(0, kEvent,
               Number(1, 2) + Number(2, 123) + Bytes(3, grant) + Number(4, 62) +
                   Bytes(5, std::string(600, 'm'))));
  Answer(Frame(0, kEvent, Number(1, 3)));
  // One that cannot be told stays.
  event.size = 8;
  EXPECT_EQ(bpfgrant_connection_next_event(connection_, 0, &event, &error_),
            -EINVAL);
  event.size = sizeof(event);
  ASSERT_EQ(bpfgrant_connection_next_event(connection_, 1000, &event, &error_),
            0);
  EXPECT_EQ(event.type, static_cast<uint32_t>(BPFGRANT_EVENT_GRANT_ENDED));
  EXPECT_EQ(event.grant, 9u);
  EXPECT_EQ(event.reason, 62);
  EXPECT_EQ(event.uid, 5u);
  EXPECT_EQ(event.at_unix_ms, 123);
  EXPECT_STREQ(event.program, "sampler");
  EXPECT_EQ(std::strlen(event.message), sizeof(event.message) - 1);
  ASSERT_EQ(bpfgrant_connection_next_event(connection_, 0, &event, &error_), 0);
  EXPECT_EQ(event.type, static_cast<uint32_t>(BPFGRANT_EVENT_RELOADED));
  EXPECT_EQ(event.grant, 0u);
}

// A grant without fds, since what they are is not looked at here.
TEST_F(CApiTest, AGrantEndsAndIsNoMore) {
  Connect();
  Answer(Frame(2, kAcquire, Number(1, 9) + Number(3, 4) + Bytes(5, "hash")));
  ASSERT_EQ(Acquire(), 0) << error_.message;
  EXPECT_EQ(bpfgrant_grant_id(grant_), 9u);
  EXPECT_EQ(bpfgrant_grant_delivery(grant_), BPFGRANT_DELIVERY_PROCESS);
  EXPECT_STREQ(bpfgrant_grant_interface_hash(grant_), "hash");
  EXPECT_EQ(bpfgrant_grant_program_fd(grant_), -1);
  bpfgrant_handle handle = BPFGRANT_HANDLE_INIT;
  EXPECT_EQ(bpfgrant_grant_handle_at(grant_, 0, &handle), -ENOENT);
  EXPECT_EQ(bpfgrant_grant_find(grant_, "samples", &handle), -ENOENT);
  EXPECT_EQ(bpfgrant_grant_find(grant_, nullptr, &handle), -ENOENT);
  bpfgrant_ring_buffer* samples = nullptr;
  EXPECT_EQ(bpfgrant_ring_buffer_open(grant_, "samples", &samples, &error_),
            -ENOENT);
  EXPECT_EQ(samples, nullptr);
  EXPECT_EQ(bpfgrant_grant_ended(grant_), 0);
  Answer(
      Frame(0, kEvent, Number(1, 2) + Bytes(3, Number(1, 9)) + Number(4, 62)));
  EXPECT_EQ(bpfgrant_connection_dispatch(connection_, &error_), 0);
  EXPECT_EQ(bpfgrant_grant_ended(grant_), 1);
  EXPECT_EQ(bpfgrant_grant_end_reason(grant_), 62);
  // A grant outlives its connection, as one that has ended.
  bpfgrant_connection_close(connection_);
  connection_ = nullptr;
  EXPECT_EQ(bpfgrant_grant_ended(grant_), 1);
  EXPECT_EQ(bpfgrant_grant_release(grant_, &error_), -ENOTCONN);
  EXPECT_EQ(bpfgrant_grant_release(grant_, &error_), -ENOENT);
  bpfgrant_grant_free(grant_);
}

TEST_F(CApiTest, ADaemonThatIsGone) {
  Connect();
  HangUp();
  EXPECT_EQ(Acquire(), -ENOTCONN);
  EXPECT_EQ(bpfgrant_connection_dispatch(connection_, &error_), -ENOTCONN);
  EXPECT_EQ(bpfgrant_connection_fd(connection_), -1);
}

TEST_F(CApiTest, OneThatIsSilent) {
  Answer(HelloReply());
  bpfgrant_connect_options options = BPFGRANT_CONNECT_OPTIONS_INIT;
  options.timeout_ms = 20;
  ASSERT_EQ(bpfgrant_connect_socket(ends_[0], &options, &connection_, &error_),
            0);
  EXPECT_EQ(Acquire(), -ETIMEDOUT);
}

TEST_F(CApiTest, IsNotAChilds) {
  Connect();
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) _exit(Acquire() == -EPERM ? 0 : 1);
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST_F(CApiTest, ArgumentsThatThereAreNot) {
  Connect();
  bpfgrant_acquire_options options = BPFGRANT_ACQUIRE_OPTIONS_INIT;
  options.size = sizeof(options) - 1;
  EXPECT_EQ(bpfgrant_acquire(connection_, &options, &grant_, &error_), -EINVAL);
  options.size = sizeof(options);
  bpfgrant_parameter parameter = {};
  parameter.type = 99;
  options.parameters = &parameter;
  options.parameter_count = 1;
  EXPECT_EQ(bpfgrant_acquire(connection_, &options, &grant_, &error_), -EINVAL);
  options.parameter_count = 0;
  options.delivery = 77;
  EXPECT_EQ(bpfgrant_acquire(connection_, &options, &grant_, &error_), -EINVAL);
  options.delivery = BPFGRANT_DELIVERY_ANY;
  EXPECT_EQ(
      bpfgrant_attach_socket(connection_, &options, 0,
                             static_cast<bpfgrant_hook>(9), &grant_, &error_),
      -EINVAL);
  bpfgrant_uring_loop_options loop_options = BPFGRANT_URING_LOOP_OPTIONS_INIT;
  bpfgrant_uring_loop* loop = nullptr;
  loop_options.where = 7;
  EXPECT_EQ(
      bpfgrant_uring_loop_create(connection_, &loop_options, &loop, &error_),
      -EINVAL);
  loop_options.where = BPFGRANT_LOOP_PROCESS_ONLY;
  EXPECT_EQ(bpfgrant_uring_loop_create(nullptr, &loop_options, &loop, &error_),
            -EINVAL)
      << error_.message;
  // Freeing nothing does nothing.
  bpfgrant_connection_close(nullptr);
  bpfgrant_grant_free(nullptr);
  bpfgrant_description_free(nullptr);
  bpfgrant_ring_buffer_free(nullptr);
  bpfgrant_user_ring_buffer_free(nullptr);
  bpfgrant_array_free(nullptr);
  bpfgrant_swappable_map_free(nullptr);
  bpfgrant_uring_loop_free(nullptr);
}

}  // namespace
}  // namespace bpfgrant::test
