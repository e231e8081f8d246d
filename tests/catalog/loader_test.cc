#include "daemon/loader/loader.h"

#include <bpf/bpf.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bpfgrant/daemon/loader.pb.h"
#include "proto/wire/limits.h"
#include "proto/wire/message_socket.h"
#include "tests/catalog/catalog_fixture.h"

namespace bpfgrant::daemon {
namespace {

struct Answer {
  LoaderReply message;
  std::vector<UniqueFd> fds;
};

// This test is the broker; the loader is a child, as in the daemon.
class LoaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRE_BPF();
    catalog_.WriteProgram("sample");
    catalog_.WriteProgram("steer", "steer");
    catalog_.WriteProgram("broken", "writes_gate");
  }
  void TearDown() override {
    if (loader_ > 0) {
      kill(loader_, SIGKILL);
      waitpid(loader_, nullptr, 0);
    }
  }

  void StartLoader() {
    int pair[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    broker_.reset(pair[0]);
    UniqueFd loader_end(pair[1]);
    loader_ = fork();
    ASSERT_GE(loader_, 0);
    if (loader_ == 0) {
      broker_.reset();
      _exit(RunLoader(std::move(loader_end),
                      {{catalog_.path()}, {policy_.path()}, {}}));
    }
  }

  Answer Receive() {
    pollfd polled{broker_.get(), POLLIN, 0};
    EXPECT_EQ(poll(&polled, 1, 20'000), 1);
    auto packet =
        ReceivePacket(broker_.get(), absl::MakeSpan(buffer_), kMaxFdsPerGrant);
    Answer answer;
    EXPECT_TRUE(packet.ok()) << packet.status();
    if (!packet.ok()) return answer;
    EXPECT_TRUE(answer.message.ParseFromArray(
        packet->bytes.data(), static_cast<int>(packet->bytes.size())));
    answer.fds = std::move(packet->fds);
    return answer;
  }

  void Send(const LoaderRequest& request, const std::vector<int>& fds = {}) {
    ASSERT_TRUE(
        SendPacket(broker_.get(), request.SerializeAsString(), fds).ok());
  }
  Answer Ask(const LoaderRequest& request, const std::vector<int>& fds = {}) {
    Send(request, fds);
    Answer answer = Receive();
    EXPECT_EQ(answer.message.id(), request.id());
    return answer;
  }

  // Takes Ready and maps the gate.
  void Begin() {
    StartLoader();
    const Answer ready = Receive();
    ASSERT_TRUE(ready.message.has_ready()) << ready.message.ShortDebugString();
    EXPECT_EQ(ready.message.ready().gate_slots(), kGateSlots);
    EXPECT_EQ(ready.message.ready().loader_pid(),
              static_cast<uint32_t>(loader_));
    ASSERT_EQ(ready.fds.size(), 3u);
    gates_ = static_cast<bpfgrant_gate_entry*>(
        mmap(nullptr, kGateSlots * sizeof(bpfgrant_gate_entry),
             PROT_READ | PROT_WRITE, MAP_SHARED, ready.fds[0].get(), 0));
    ASSERT_NE(gates_, MAP_FAILED);
    ReadSnapshot(ready.fds[1]);
  }

  void ReadSnapshot(const UniqueFd& memfd) {
    struct stat info;
    ASSERT_EQ(fstat(memfd.get(), &info), 0);
    std::string bytes(static_cast<size_t>(info.st_size), '\0');
    ASSERT_EQ(pread(memfd.get(), bytes.data(), bytes.size(), 0), info.st_size);
    ASSERT_TRUE(snapshot_.ParseFromString(bytes));
    EXPECT_EQ(write(memfd.get(), "x", 1), -1);
  }

  std::string IdentityOf(const std::string& name) {
    for (const CatalogEntry& entry : snapshot_.entry()) {
      if (entry.description().summary().name() == name) {
        return entry.identity();
      }
    }
    ADD_FAILURE() << name;
    return "";
  }

  LoaderRequest LoadOf(const std::string& name, uint32_t slot = 3,
                       uint64_t nonce = 42) {
    LoaderRequest request;
    request.set_id(++id_);
    request.mutable_load()->set_program(name);
    request.mutable_load()->set_identity(IdentityOf(name));
    request.mutable_load()->set_gate_slot(slot);
    request.mutable_load()->set_gate_nonce(nonce);
    return request;
  }
  LoaderRequest AttachOf(const std::string& name) {
    LoaderRequest request;
    request.set_id(++id_);
    request.mutable_attach()->set_program(name);
    request.mutable_attach()->set_until_ns(INT64_MAX);
    return request;
  }
  LoaderRequest LookAt(uint32_t slot, uint64_t nonce) {
    LoaderRequest request;
    request.set_id(++id_);
    LookRequest::Instance& instance = *request.mutable_look()->add_instance();
    instance.set_gate_slot(slot);
    instance.set_gate_nonce(nonce);
    return request;
  }
  LoaderRequest Reload() {
    LoaderRequest request;
    request.set_id(++id_);
    request.mutable_reload();
    return request;
  }

  int WaitForLoader() {
    int status = -1;
    EXPECT_EQ(waitpid(loader_, &status, 0), loader_);
    loader_ = -1;
    EXPECT_TRUE(WIFEXITED(status)) << status;
    return WEXITSTATUS(status);
  }

  TemporaryFolder catalog_, policy_;
  UniqueFd broker_;
  pid_t loader_ = -1;
  uint64_t id_ = 0;
  bpfgrant_gate_entry* gates_ = nullptr;
  Snapshot snapshot_;
  std::vector<char> buffer_ = std::vector<char>(kMaxFrameBytes);
};

TEST_F(LoaderTest, LoadsBothTypesWithThreeCapabilities) {
  Begin();
  std::ifstream status(absl::StrCat("/proc/", loader_, "/status"));
  const std::string text{std::istreambuf_iterator<char>(status), {}};
  // CAP_PERFMON is 38, CAP_BPF 39, CAP_SYS_PTRACE 19.
  for (const char* line :
       {"CapInh:\t0000000000000000", "CapPrm:\t000000c000080000",
        "CapEff:\t000000c000080000", "CapBnd:\t0000000000000000",
        "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"}) {
    EXPECT_NE(text.find(line), std::string::npos) << line << " in\n" << text;
  }
  const Answer sample = Ask(LoadOf("sample"));
  ASSERT_TRUE(sample.message.has_load()) << sample.message.ShortDebugString();
  EXPECT_EQ(sample.fds.size(), 5u);
  const Answer steer = Ask(LoadOf("steer"));
  ASSERT_TRUE(steer.message.has_load()) << steer.message.ShortDebugString();
  EXPECT_EQ(steer.fds.size(), 2u);
}

TEST_F(LoaderTest, GatesOpenAndCloseAndAllOfThemWithTheBroker) {
  Begin();
  const Answer loaded = Ask(LoadOf("sample", 3, 42));
  ASSERT_TRUE(loaded.message.has_load());
  const int program = loaded.fds[0].get();
  EXPECT_EQ(RunFilter(program), 0);
  gates_[3].nonce = 42;
  EXPECT_EQ(RunFilter(program), 50);
  gates_[kGateSlots - 1].nonce = 1;
  broker_.reset();
  EXPECT_EQ(WaitForLoader(), 0);
  EXPECT_EQ(gates_[3].nonce, 0u);
  EXPECT_EQ(gates_[kGateSlots - 1].nonce, 0u);
  EXPECT_EQ(RunFilter(program), 0);
}

TEST_F(LoaderTest, RefusesWhatIsNotInTheCatalog) {
  Begin();
  const auto refusal = [&](const LoaderRequest& request) {
    const Answer answer = Ask(request);
    EXPECT_TRUE(answer.fds.empty());
    return answer.message.refusal().reason();
  };
  LoaderRequest request = LoadOf("sample");
  request.mutable_load()->set_program("simple");
  EXPECT_EQ(refusal(request), v1::REASON_UNKNOWN_PROGRAM);
  EXPECT_EQ(refusal(LoadOf("broken")), v1::REASON_PROGRAM_UNAVAILABLE);
  request = LoadOf("sample");
  request.mutable_load()->set_identity(std::string(64, '0'));
  EXPECT_EQ(refusal(request), v1::REASON_PROGRAM_UNAVAILABLE);
  EXPECT_EQ(refusal(LoadOf("sample", kGateSlots)), v1::REASON_INVALID_ARGUMENT);
  EXPECT_EQ(refusal(LoadOf("sample", 1, 0)), v1::REASON_INVALID_ARGUMENT);
}

TEST_F(LoaderTest, TellsWhatIsLeftOfWhatItLoadedAndOfNothingElse) {
  Begin();
  Answer loaded = Ask(LoadOf("sample", 3, 42));
  ASSERT_TRUE(loaded.message.has_load());
  const auto left = [&](uint32_t slot, uint64_t nonce) {
    const Answer answer = Ask(LookAt(slot, nonce));
    EXPECT_TRUE(answer.message.has_look());
    const auto& held = answer.message.look().held();
    return held.empty() ? std::string() : held[0].object();
  };
  EXPECT_TRUE(left(3, 42).starts_with("program ")) << left(3, 42);
  EXPECT_EQ(left(3, 43), "");
  EXPECT_EQ(left(4, 42), "");
  // A map of it is enough.
  UniqueFd map = std::move(loaded.fds.back());
  loaded.fds.clear();
  const auto until = [&](auto condition) {
    for (int i = 0; i < 20'000; ++i) {
      if (condition(left(3, 42))) return true;
      usleep(1000);
    }
    return false;
  };
  EXPECT_TRUE(until(
      [](const std::string& object) { return object.starts_with("map "); }));
  map.reset();
  EXPECT_TRUE(until([](const std::string& object) { return object.empty(); }));
}

TEST_F(LoaderTest, Attaches) {
  Begin();
  const Answer loaded = Ask(LoadOf("sample"));
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const int program = loaded.fds.at(0).get(), map = loaded.fds.at(1).get();
  const auto reason = [&](const std::string& name, int first, int second) {
    return Ask(AttachOf(name), {first, second}).message.refusal().reason();
  };
  // Not a program, another type, not a socket.
  EXPECT_EQ(reason("sample", map, socket.get()), v1::REASON_INVALID_ARGUMENT);
  EXPECT_EQ(reason("sample", socket.get(), socket.get()),
            v1::REASON_INVALID_ARGUMENT);
  EXPECT_EQ(reason("steer", program, socket.get()),
            v1::REASON_INVALID_ARGUMENT);
  EXPECT_EQ(reason("simple", program, socket.get()),
            v1::REASON_UNKNOWN_PROGRAM);
  EXPECT_EQ(reason("sample", program, map), v1::REASON_SOCKET_UNSUITABLE);
  EXPECT_TRUE(
      Ask(AttachOf("sample"), {program, socket.get()}).message.has_attach());
  EXPECT_EQ(reason("sample", program, socket.get()), v1::REASON_ATTACH_FAILED);
}

// A map of type HASH has the number of a socket filter; the fd's kind counts.
TEST_F(LoaderTest, AMapIsNoProgram) {
  Begin();
  const UniqueFd map(
      bpf_map_create(BPF_MAP_TYPE_HASH, "test", 4, 8, 1, nullptr));
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(Ask(AttachOf("sample"), {map.get(), socket.get()})
                .message.refusal()
                .reason(),
            v1::REASON_INVALID_ARGUMENT);
}

TEST_F(LoaderTest, ReloadsOrKeepsWhatWas) {
  Begin();
  EXPECT_EQ(snapshot_.entry_size(), 3);
  policy_.Write("a.policy", "rule {\n  name: \"r\"\n  effect: PERHAPS\n}\n");
  catalog_.WriteProgram("another");
  const Answer rejected = Ask(Reload());
  EXPECT_EQ(rejected.message.refusal().reason(), v1::REASON_RELOAD_REJECTED);
  EXPECT_NE(rejected.message.refusal().message().find(policy_.path() +
                                                      "/a.policy:3:"),
            std::string::npos)
      << rejected.message.refusal().message();
  EXPECT_TRUE(Ask(LoadOf("sample")).message.has_load());

  policy_.Write("a.policy",
                "rule { name: \"r\" effect: ALLOW everyone: true "
                "program: \"*\" quota { grants: 1 } }\n");
  const Answer reloaded = Ask(Reload());
  ASSERT_TRUE(reloaded.message.has_reload());
  ASSERT_EQ(reloaded.fds.size(), 1u);
  ReadSnapshot(reloaded.fds[0]);
  EXPECT_EQ(snapshot_.entry_size(), 4);
  EXPECT_EQ(snapshot_.rule_size(), 1);
  EXPECT_TRUE(Ask(LoadOf("another")).message.has_load());
}

// Nobody waits for all of a reload, and it ends though others go on asking.
TEST_F(LoaderTest, LoadsWhileItReloads) {
  ASSERT_NO_FATAL_FAILURE(Begin());
  for (int i = 0; i < 20; ++i) {
    catalog_.WriteProgram(absl::StrCat("more_", i));
  }
  const LoaderRequest reload = Reload();
  Send(reload);
  int loads = 0;
  for (;;) {
    const LoaderRequest load = LoadOf("sample");
    Send(load);
    Answer answer = Receive();
    const bool reloaded = answer.message.id() == reload.id();
    if (reloaded) {
      EXPECT_TRUE(answer.message.has_reload());
      ReadSnapshot(answer.fds[0]);
      answer = Receive();
    }
    EXPECT_EQ(answer.message.id(), load.id());
    EXPECT_TRUE(answer.message.has_load()) << answer.message.DebugString();
    if (reloaded) break;
    ++loads;
  }
  EXPECT_GT(loads, 1);
  EXPECT_EQ(snapshot_.entry_size(), 23);
}

// In the order in which they were asked for.
TEST_F(LoaderTest, EveryReloadIsAnswered) {
  ASSERT_NO_FATAL_FAILURE(Begin());
  const LoaderRequest first = Reload(), second = Reload();
  Send(first);
  Send(second);
  ASSERT_EQ(Receive().message.id(), first.id());
  const Answer answer = Receive();
  ASSERT_EQ(answer.message.id(), second.id());
  ReadSnapshot(answer.fds[0]);
  EXPECT_EQ(snapshot_.entry_size(), 3);
}

TEST_F(LoaderTest, AnOldDigestIsRefusedAfterAReload) {
  Begin();
  const LoaderRequest stale = LoadOf("sample");
  catalog_.WriteProgram("sample", "other_body");
  ASSERT_TRUE(Ask(Reload()).message.has_reload());
  LoaderRequest request = stale;
  request.set_id(++id_);
  EXPECT_EQ(Ask(request).message.refusal().reason(),
            v1::REASON_PROGRAM_UNAVAILABLE);
}

TEST_F(LoaderTest, DoesNotBeginWithABrokenPolicy) {
  policy_.Write("a.policy", "rubbish");
  StartLoader();
  const Answer answer = Receive();
  EXPECT_EQ(answer.message.id(), 0u);
  EXPECT_EQ(answer.message.refusal().reason(), v1::REASON_FILE_INVALID);
  EXPECT_EQ(WaitForLoader(), 1);
}

class LoaderProtocolTest : public LoaderTest {
 protected:
  void ExpectEnd(const std::string& bytes, const std::vector<int>& fds = {}) {
    Begin();
    gates_[5].nonce = 7;
    ASSERT_TRUE(SendPacket(broker_.get(), bytes, fds).ok());
    EXPECT_EQ(WaitForLoader(), 1);
    EXPECT_EQ(gates_[5].nonce, 0u);
  }
};

TEST_F(LoaderProtocolTest, Rubbish) { ExpectEnd("\xff\xff rubbish"); }

TEST_F(LoaderProtocolTest, NoId) {
  LoaderRequest request = Reload();
  request.set_id(0);
  ExpectEnd(request.SerializeAsString());
}

TEST_F(LoaderProtocolTest, NoBody) {
  LoaderRequest request;
  request.set_id(1);
  ExpectEnd(request.SerializeAsString());
}

TEST_F(LoaderProtocolTest, UnexpectedFds) {
  ExpectEnd(Reload().SerializeAsString(), {0});
}

// As many as a session's maps may be, and what is wrong with them is said.
TEST_F(LoaderTest, AsManyFdsAsAGrantHasDoNotEndIt) {
  Begin();
  LoaderRequest request;
  request.set_id(77);
  request.mutable_configure()->set_gate_slot(1);
  request.mutable_configure()->set_gate_nonce(1);
  const std::vector<int> fds(kMaxFdsPerGrant, 0);
  EXPECT_EQ(Ask(request, fds).message.refusal().reason(),
            v1::REASON_INVALID_ARGUMENT);
  EXPECT_TRUE(Ask(LoadOf("sample", 3)).message.has_load());
}

TEST_F(LoaderProtocolTest, MissingFds) {
  ExpectEnd(AttachOf("sample").SerializeAsString(), {0});
}

// Replies that nobody reads must not stop the loader from seeing the end.
TEST_F(LoaderTest, EndsWithABrokerThatDoesNotRead) {
  Begin();
  LoaderRequest request = LoadOf("sample");
  int sent = 0;
  while (sent < 2000) {
    request.set_id(++id_);
    const auto status =
        SendPacket(broker_.get(), request.SerializeAsString(), {});
    if (!status.ok()) break;
    ++sent;
  }
  gates_[9].nonce = 1;
  broker_.reset();
  EXPECT_EQ(WaitForLoader(), 0);
  EXPECT_EQ(gates_[9].nonce, 0u);
}

}  // namespace
}  // namespace bpfgrant::daemon
