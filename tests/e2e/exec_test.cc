// exec: programs that know nothing of bpfgrant, with what their grants bring.

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/process_tree.h"
#include "tests/privileged/client_fixture.h"

namespace bpfgrant::test {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;
using Strings = std::vector<std::string>;

constexpr int kFailed = 125, kNotExecutable = 126, kNotFound = 127;
constexpr char kProxy[] = "/lib/systemd/systemd-socket-proxyd";
// Prints the environment that names fds, and what is open.
constexpr char kTell[] =
    "echo \"listed $LISTEN_FDS $LISTEN_FDNAMES\";"
    "test -z \"$LISTEN_PID\" || test \"$LISTEN_PID\" = $$ || echo WRONG;"
    "for fd in /proc/$$/fd/*; do echo \"fd ${fd##*/}"
    " $(readlink /proc/$$/fd/${fd##*/})\"; done;"
    "echo \"session $BPFGRANT_SESSION_FD\"";

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

UniqueFd ListenOn(uint16_t& port) {
  UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = Loopback(0);
  socklen_t length = sizeof(address);
  auto* raw = reinterpret_cast<sockaddr*>(&address);
  EXPECT_EQ(bind(socket.get(), raw, length), 0);
  EXPECT_EQ(listen(socket.get(), 16), 0);
  EXPECT_EQ(getsockname(socket.get(), raw, &length), 0);
  port = ntohs(address.sin_port);
  return socket;
}

// Answers each connection with a word, for as long as it lives.
class Backend {
 public:
  Backend() : socket_(ListenOn(port_)), thread_([this] { Serve(); }) {}
  ~Backend() {
    stop_ = true;
    shutdown(socket_.get(), SHUT_RDWR);
    thread_.join();
  }
  uint16_t port() const { return port_; }

 private:
  void Serve() {
    while (!stop_) {
      const UniqueFd peer(accept(socket_.get(), nullptr, nullptr));
      if (peer.valid()) (void)!write(peer.get(), "served", 6);
    }
  }
  uint16_t port_ = 0;
  UniqueFd socket_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

// What the server at that port says; "" if nothing within the time.
std::string AskServer(uint16_t port, std::chrono::milliseconds time) {
  const UniqueFd socket(
      ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const sockaddr_in address = Loopback(port);
  (void)connect(socket.get(), reinterpret_cast<const sockaddr*>(&address),
                sizeof(address));
  pollfd watch{socket.get(), POLLIN, 0};
  poll(&watch, 1, static_cast<int>(time.count()));
  char answer[16];
  const ssize_t length = read(socket.get(), answer, sizeof(answer));
  return length > 0 ? std::string(answer, static_cast<size_t>(length)) : "";
}

uint16_t FreePort() {
  uint16_t port = 0;
  ListenOn(port);
  return port;
}

class ExecTest : public ClientTest {
 protected:
  void StartWith(const Strings& programs) {
    DaemonOptions options;
    options.programs = programs;
    Start(options);
  }
  Strings Words(Strings words) {
    words.insert(words.begin(), {"--socket", daemon().broker_socket(), "exec"});
    return words;
  }
  Outcome Run(Strings words, UnprivilegedOptions options = {}) {
    return RunUnprivileged(BPFGRANTCTL_PATH, Words(std::move(words)), options);
  }
  UnprivilegedProcess Spawn(Strings words) {
    UnprivilegedOptions options = Nobody::Options();
    auto process = UnprivilegedProcess::Spawn(BPFGRANTCTL_PATH,
                                              Words(std::move(words)), options);
    EXPECT_TRUE(process.ok()) << process.status();
    return *std::move(process);
  }
  std::vector<v1::GrantInfo> Live() {
    const auto reply = administrator().Grants();
    EXPECT_TRUE(reply.ok()) << reply.status();
    std::vector<v1::GrantInfo> live;
    for (const v1::GrantInfo& grant : reply->grant()) {
      if (grant.ended() == v1::REASON_UNSPECIFIED) live.push_back(grant);
    }
    return live;
  }
  // A server behind a filter, that serves.
  struct Server {
    uint16_t port;
    UnprivilegedProcess process;
  };
  Server Serve(const Backend& backend, const std::string& filter) {
    const uint16_t port = FreePort();
    Server server{port,
                  Spawn({"--listen", absl::StrCat("web=tcp:127.0.0.1:", port),
                         "--attach", filter + "=web", "--", kProxy,
                         absl::StrCat("127.0.0.1:", backend.port())})};
    EXPECT_TRUE(WaitUntil(
        [&] { return AskServer(port, kPatience) == "served"; }, kPatience));
    return server;
  }
  uint64_t BufferFill() {
    const auto activity = administrator().Activity();
    if (!activity.ok() || activity->grant_size() != 1 ||
        activity->grant(0).ring_buffer_size() != 1) {
      return 0;
    }
    return activity->grant(0).ring_buffer(0).used_bytes();
  }
};

TEST_F(ExecTest, AServerOfSystemdsHasItsPacketsSampled) {
  ASSERT_NO_FATAL_FAILURE(StartWith({"packet_sampler"}));
  const Backend backend;
  Server server = Serve(backend, "packet_sampler");
  const auto live = Live();
  ASSERT_THAT(live, SizeIs(1));
  // The grant is the server's: nothing stands between.
  EXPECT_EQ(live[0].pid(), static_cast<uint32_t>(server.process.pid()));
  EXPECT_EQ(live[0].uid(), kNobody);
  EXPECT_EQ(std::filesystem::read_symlink(
                absl::StrCat("/proc/", server.process.pid(), "/exe"))
                .filename(),
            "systemd-socket-proxyd");
  uint64_t before = 0;
  ASSERT_TRUE(
      WaitUntil([&] { return (before = BufferFill()) > 0; }, kPatience));
  EXPECT_EQ(AskServer(server.port, kPatience), "served");
  EXPECT_TRUE(WaitUntil([&] { return BufferFill() > before; }, kPatience));
  // SIGTERM is the server's own, and with it goes its grant.
  server.process.Kill(SIGTERM);
  server.process.Wait();
  EXPECT_TRUE(WaitUntil([&] { return Live().empty(); }, kPatience));
}

// What its filter does once it is revoked, its manifest says.
TEST_F(ExecTest, RevokingItsFilterShutsAServerOff) {
  ASSERT_NO_FATAL_FAILURE(StartWith({"packet_sampler"}));
  ASSERT_NO_FATAL_FAILURE(AddDroppingSampler("dropper"));
  const Backend backend;
  Server shut = Serve(backend, "dropper");
  Server open = Serve(backend, "packet_sampler");
  v1::RevokeRequest all;
  all.set_all(true);
  EXPECT_EQ(Revoke(all), 2u);
  EXPECT_EQ(AskServer(shut.port, std::chrono::milliseconds(1500)), "");
  EXPECT_EQ(AskServer(open.port, kPatience), "served");
  // Both run on: what to make of it is theirs.
  EXPECT_EQ(kill(shut.process.pid(), 0), 0);
}

TEST_F(ExecTest, FdsFollowEachOtherUnderTheirNames) {
  ASSERT_NO_FATAL_FAILURE(StartWith({"packet_sampler"}));
  const Outcome outcome =
      Run({"--listen", "web=tcp:127.0.0.1:0", "--grant", "p=packet_sampler/1",
           "--", "/bin/sh", "-c", kTell});
  EXPECT_TRUE(outcome.ok()) << outcome.Describe();
  EXPECT_THAT(outcome.output,
              StartsWith("listed 5 web:p.program:p.samples:p.config:"
                         "p.counters\n"));
  EXPECT_THAT(
      outcome.output,
      AllOf(HasSubstr("fd 3 socket:"), HasSubstr("fd 4 anon_inode:bpf-prog"),
            HasSubstr("fd 5 anon_inode:bpf-map"),
            HasSubstr("fd 7 anon_inode:bpf-map"), HasSubstr("fd 8 socket:"),
            HasSubstr("session 8\n"),  // A pipe is the shell's own.
            Not(::testing::ContainsRegex("fd (9|1[0-9]) [^p]")),
            Not(HasSubstr("WRONG"))));
}

// Neither what was open before, nor what the tool itself opened.
TEST_F(ExecTest, NothingElseIsInherited) {
  ASSERT_NO_FATAL_FAILURE(StartWith({"packet_sampler"}));
  const UniqueFd secret(open("/etc/shadow", O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(secret.valid());
  UnprivilegedOptions options;
  options.fds = {{secret.get(), 3}, {secret.get(), 9}, {secret.get(), 700}};
  // For another process: those are not ours to pass on.
  options.environment = {"LISTEN_PID=1", "LISTEN_FDS=1",
                         "LISTEN_FDNAMES=stolen"};
  const Outcome outcome =
      Run({"--grant", "packet_sampler", "--fd", "packet_sampler.samples=9",
           "--fd", "packet_sampler.config=20", "--", "/bin/sh", "-c", kTell},
          options);
  EXPECT_TRUE(outcome.ok()) << outcome.Describe();
  EXPECT_THAT(
      outcome.output,
      AllOf(StartsWith("listed 2 packet_sampler.program:packet_sampler."
                       "counters\n"),
            HasSubstr("fd 3 anon_inode:bpf-prog"),
            HasSubstr("fd 9 anon_inode:bpf-map"),
            HasSubstr("fd 20 anon_inode:bpf-map"), HasSubstr("session 21\n"),
            Not(HasSubstr("shadow")), Not(HasSubstr("stolen"))));
}

TEST_F(ExecTest, SocketsOfTheServiceManagersArePassedOn) {
  ASSERT_NO_FATAL_FAILURE(StartWith({"packet_sampler"}));
  uint16_t port = 0;
  const UniqueFd socket = ListenOn(port);
  UnprivilegedOptions options;
  options.fds = {{socket.get(), 3}};
  options.environment = {"LISTEN_FDS=1", "LISTEN_FDNAMES=web.socket"};
  // LISTEN_PID has to be the tool's own.
  const Outcome outcome = RunUnprivileged(
      "/bin/sh",
      {"-c",
       "LISTEN_PID=$$ exec \"$0\" --socket \"$1\" exec --attach "
       "packet_sampler=web.socket -- /bin/sh -c \"$2\" "
       "{web.socket.packet_sampler.counters}",
       BPFGRANTCTL_PATH, daemon().broker_socket(),
       absl::StrCat(kTell, "; echo \"counters $0\"")},
      options);
  EXPECT_TRUE(outcome.ok()) << outcome.Describe();
  EXPECT_THAT(outcome.output, AllOf(StartsWith("listed 1 web.socket\n"),
                                    HasSubstr("fd 3 socket:")));
  // A handle of what is attached comes only if it is named.
  const std::string number = outcome.output.substr(
      outcome.output.find("counters ") + std::string("counters ").size());
  EXPECT_THAT(outcome.output, HasSubstr(absl::StrCat("fd ", std::stoi(number),
                                                     " anon_inode:bpf-map")));
  // And the filter is on it, and stays.
  const int none = 0;
  EXPECT_EQ(setsockopt(socket.get(), SOL_SOCKET, SO_DETACH_FILTER, &none,
                       sizeof(none)),
            -1);
  EXPECT_EQ(errno, EPERM);
}

TEST_F(ExecTest, NumbersReplaceNames) {
  ASSERT_NO_FATAL_FAILURE(StartWith({"packet_sampler"}));
  const Outcome outcome = Run({"--grant", "packet_sampler", "--fd",
                               "packet_sampler.samples=30", "--", "/bin/echo",
                               "fds={packet_sampler.program},{packet_sampler."
                               "samples}",
                               "{\"json\": {}}", "{packet_sampler.unknown"});
  EXPECT_TRUE(outcome.ok()) << outcome.Describe();
  EXPECT_EQ(outcome.output,
            "fds=3,30 {\"json\": {}} {packet_sampler.unknown\n");
}

TEST_F(ExecTest, ParametersAreChosen) {
  ASSERT_NO_FATAL_FAILURE(StartWith({"packet_sampler"}));
  UnprivilegedProcess process = Spawn(
      {"--grant", "packet_sampler", "--set", "packet_sampler.most_bytes=9",
       "--", "/bin/sh", "-c", "echo ready; read line"});
  ASSERT_TRUE(process.WaitForLine("ready", kPatience).ok());
  const auto live = Live();
  ASSERT_THAT(live, SizeIs(1));
  EXPECT_THAT(live[0].parameter(), ElementsAre("most_bytes=9"));
  process.CloseInput();
  process.Wait();
  for (const char* value :
       {"packet_sampler.most_bytes=65", "packet_sampler.most_bytes=x",
        "packet_sampler.nothing=1", "most_bytes=1", "packet_sampler.=1"}) {
    const Outcome outcome = Run({"--grant", "packet_sampler", "--set", value,
                                 "--", "/bin/echo", "reached"});
    EXPECT_EQ(outcome.exit_code, kFailed) << value << outcome.Describe();
    EXPECT_THAT(outcome.output, IsEmpty());
  }
}

// A group of one, with itself as the first: a parameter that is a socket.
TEST_F(ExecTest, AReuseportProgramGoesOnASocketOfItsOwn) {
  ASSERT_NO_FATAL_FAILURE(StartWith({"reuseport_steer"}));
  UnprivilegedProcess process = Spawn(
      {"--listen", "dns=udp:127.0.0.1:0", "--attach", "reuseport_steer=dns",
       "--set", "reuseport_steer.first_socket=dns", "--", "/bin/sh", "-c",
       absl::StrCat("echo begun;", kTell, "; echo ready; read line")});
  ASSERT_TRUE(process.WaitForLine("listed 1 dns", kPatience).ok());
  ASSERT_TRUE(process.WaitForLine("ready", kPatience).ok());
  const auto live = Live();
  ASSERT_THAT(live, SizeIs(1));
  EXPECT_EQ(live[0].program(), "reuseport_steer");
  process.CloseInput();
  process.Wait();
}

TEST_F(ExecTest, ExitCodesTellWhoseTheyAre) {
  ASSERT_NO_FATAL_FAILURE(StartWith({"packet_sampler", "io_latency"}));
  const auto code = [this](const Strings& words) {
    const Outcome outcome = Run(words);
    EXPECT_THAT(outcome.output, Not(HasSubstr("reached")));
    return outcome.exit_code;
  };
  const std::string grant = "packet_sampler";
  EXPECT_EQ(code({"--grant", grant, "--", "/bin/sh", "-c", "exit 7"}), 7);
  EXPECT_EQ(code({"--grant", grant, "--", "/bin/sh", "-c", "exit 2"}), 2);
  EXPECT_EQ(code({"--grant", grant, "--", "/nonexistent"}), kNotFound);
  EXPECT_EQ(code({"--grant", grant, "--", "/etc"}), kNotExecutable);
  const Strings rest = {"--", "/bin/echo", "reached"};
  for (const Strings& options : std::vector<Strings>{
           {"--grant", "unknown"},
           {"--grant", "packet_sampler/2"},
           // It would serve the tool, and end with it.
           {"--grant", "io_latency"},
           {"--grant", grant, "--grant", grant},
           {"--grant", grant, "--fd", "packet_sampler.samples=3"},
           {"--grant", grant, "--fd", "packet_sampler.samples=2"},
           {"--grant", grant, "--fd", "packet_sampler.nothing=9"},
           {"--grant", grant, "--fd", "packet_sampler.samples=9", "--fd",
            "packet_sampler.config=9"},
           {"--grant", "a:b=packet_sampler"},
           {"--attach", "packet_sampler=nowhere"},
           {"--attach", "packet_sampler"},
           {"--listen", "web=tcp:localhost:80"},
           {"--listen", "web=sctp:127.0.0.1:80"},
           {"--listen", "web=tcp:127.0.0.1:99999"},
           {"--no-such-option"}}) {
    Strings words = options;
    words.insert(words.end(), rest.begin(), rest.end());
    EXPECT_EQ(code(words), kFailed) << testing::PrintToString(options);
  }
  EXPECT_EQ(code({"--grant", grant}), kFailed);
  EXPECT_THAT(Run({"--grant", "io_latency", "--", "true"}).errors,
              HasSubstr("cannot be passed on"));
  const Outcome nobody_there = RunUnprivileged(
      BPFGRANTCTL_PATH, {"--socket", "/nonexistent/socket", "exec", "--grant",
                         grant, "--", "/bin/echo", "reached"});
  EXPECT_EQ(nobody_there.exit_code, kFailed);
  EXPECT_TRUE(WaitUntil([&] { return Live().empty(); }, kPatience));
}

// The session is the fd: a program that closes what it does not know has no
// grant any more.
TEST_F(ExecTest, AGrantEndsWithTheSessionsFd) {
  ASSERT_NO_FATAL_FAILURE(StartWith({"packet_sampler"}));
  UnprivilegedProcess process =
      Spawn({"--grant", "packet_sampler", "--", "/bin/bash", "-c",
             "echo ready; read line; eval \"exec $BPFGRANT_SESSION_FD>&-\";"
             "echo closed; read line"});
  ASSERT_TRUE(process.WaitForLine("ready", kPatience).ok());
  EXPECT_THAT(Live(), SizeIs(1));
  ASSERT_TRUE(process.WriteLine("go").ok());
  ASSERT_TRUE(process.WaitForLine("closed", kPatience).ok());
  EXPECT_TRUE(WaitUntil([&] { return Live().empty(); }, kPatience));
  process.CloseInput();
  EXPECT_EQ(process.Wait().exit_code, 1);
}

// It is no use to a child that outlives the program.
TEST_F(ExecTest, AForkedChildDoesNotKeepAGrant) {
  ASSERT_NO_FATAL_FAILURE(StartWith({"packet_sampler"}));
  const Outcome outcome =
      Run({"--grant", "packet_sampler", "--", "/bin/sh", "-c",
           "(sleep 60 >/dev/null 2>&1 </dev/null & echo $!)"});
  EXPECT_TRUE(outcome.ok()) << outcome.Describe();
  EXPECT_TRUE(WaitUntil([&] { return Live().empty(); }, kPatience));
  kill(std::stoi(outcome.output), SIGKILL);
}

TEST(ExecDropInTest, IsPrintedWithoutADaemon) {
  const Outcome outcome = RunUnprivileged(
      BPFGRANTCTL_PATH,
      {"exec", "--print-drop-in", "--attach", "packet_sampler=web.socket", "--",
       "/usr/bin/server", "--name", "two words", "50%", "$HOME", "{x}"});
  EXPECT_TRUE(outcome.ok()) << outcome.Describe();
  EXPECT_EQ(outcome.output,
            "[Unit]\nWants=bpfgrantd.socket\nAfter=bpfgrantd.socket\n\n"
            "[Service]\nExecStart=\nExecStart=/usr/bin/bpfgrantctl exec "
            "--attach packet_sampler=web.socket -- /usr/bin/server --name "
            "\"two words\" \"50%%\" \"$$HOME\" {x}\n");
}

}  // namespace
}  // namespace bpfgrant::test
