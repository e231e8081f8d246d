// Somebody has taken over the broker and asks the loader for all that it must
// not get. The test is that broker; the loader is the daemon's own.

#include <linux/bpf.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bpfgrant/daemon/loader.pb.h"
#include "daemon/loader/loader.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/wire/limits.h"
#include "proto/wire/message_socket.h"
#include "tests/harness/kernel_features.h"
#include "tests/harness/private_folder.h"
#include "tests/harness/process_tree.h"
#include "tests/harness/skip.h"
#include "tests/privileged/client_fixture.h"
#include "tests/privileged/daemon_process.h"

namespace bpfgrant::test {
namespace {

using ::testing::IsEmpty;

class BrokerTakenOverTest : public PrivilegedTest {
 protected:
  struct Answer {
    daemon::LoaderReply message;
    std::vector<UniqueFd> fds;
    v1::Reason reason() const { return message.refusal().reason(); }
  };

  void SetUp() override {
    PrivilegedTest::SetUp();
    if (IsSkipped()) return;
    // What the tests ask for: each loop more takes a second to verify in an
    // emulated machine.
    for (const std::string program :
         {"packet_sampler", "reuseport_steer", "relay", "io_latency"}) {
      for (const char* ending : {".manifest", ".bpf.o"}) {
        std::filesystem::copy(
            std::filesystem::path(CATALOG_PATH) / (program + ending),
            catalog_.path());
      }
    }
    std::filesystem::copy(
        std::filesystem::path(CATALOG_PATH) / "io_latency_submit_sqe.bpf.o",
        catalog_.path());
    int pair[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK,
                         0, pair),
              0);
    broker_.reset(pair[0]);
    UniqueFd loader_end(pair[1]);
    loader_ = fork();
    ASSERT_GE(loader_, 0);
    if (loader_ == 0) {
      broker_.reset();
      alarm(120);
      daemon::LoaderOptions options;
      options.catalog_directories = {catalog_.path()};
      options.policy_directories = {policy_.path()};
      _exit(daemon::RunLoader(std::move(loader_end), options));
    }
    loader_end.reset();
    Answer ready = Receive();
    ASSERT_TRUE(ready.message.has_ready()) << ready.message.ShortDebugString();
    ASSERT_EQ(ready.fds.size(), KernelHasLoops() ? 5u : 3u);
    gates_ = static_cast<bpfgrant_gate_entry*>(
        mmap(nullptr, kGateSlots * sizeof(bpfgrant_gate_entry),
             PROT_READ | PROT_WRITE, MAP_SHARED, ready.fds[0].get(), 0));
    ASSERT_NE(gates_, MAP_FAILED);
    gates_[kGateSlots - 1].nonce = 42;
    ReadDigest(ready.fds[1].get());
    // Without it the loader would let go of what that end needs.
    keeper_ = std::move(ready.fds[2]);
    held_ = HeldBy(loader_);
  }
  void TearDown() override {
    if (loader_ <= 0) return;
    kill(loader_, SIGKILL);
    waitpid(loader_, nullptr, 0);
  }

  void ReadDigest(int memfd) {
    std::string bytes(1 << 20, '\0');
    const ssize_t length = pread(memfd, bytes.data(), bytes.size(), 0);
    ASSERT_GT(length, 0);
    bytes.resize(static_cast<size_t>(length));
    daemon::Snapshot snapshot;
    ASSERT_TRUE(snapshot.ParseFromString(bytes));
    for (const daemon::CatalogEntry& entry : snapshot.entry()) {
      identities_[entry.description().summary().name()] = entry.identity();
    }
    ASSERT_EQ(identities_["packet_sampler"].size(), 64u);
    ASSERT_EQ(identities_["relay"].size(), 64u);
  }

  Answer Receive() {
    std::vector<char> buffer(kMaxFrameBytes);
    pollfd watch{broker_.get(), POLLIN, 0};
    EXPECT_EQ(poll(&watch, 1, static_cast<int>(kPatience.count())), 1);
    auto packet =
        ReceivePacket(broker_.get(), absl::MakeSpan(buffer), kMaxFdsPerGrant);
    Answer answer;
    EXPECT_TRUE(packet.ok()) << packet.status();
    if (!packet.ok()) return answer;
    answer.message.ParseFromArray(packet->bytes.data(),
                                  static_cast<int>(packet->bytes.size()));
    answer.fds = std::move(packet->fds);
    return answer;
  }
  Answer Ask(daemon::LoaderRequest request, const std::vector<int>& fds = {}) {
    request.set_id(++id_);
    EXPECT_TRUE(
        SendPacket(broker_.get(), request.SerializeAsString(), fds).ok());
    Answer answer = Receive();
    EXPECT_EQ(answer.message.id(), id_);
    return answer;
  }

  daemon::LoaderRequest Load(const std::string& program, uint32_t slot = 3,
                             uint64_t nonce = 7) {
    daemon::LoaderRequest request;
    request.mutable_load()->set_program(program);
    const auto found = identities_.find(program);
    request.mutable_load()->set_identity(found == identities_.end()
                                             ? identities_["packet_sampler"]
                                             : found->second);
    request.mutable_load()->set_gate_slot(slot);
    request.mutable_load()->set_gate_nonce(nonce);
    return request;
  }
  v1::Reason Attach(int program, int socket) {
    daemon::LoaderRequest request;
    request.mutable_attach()->set_program("packet_sampler");
    request.mutable_attach()->set_until_ns(INT64_MAX);
    return Ask(std::move(request), {program, socket}).reason();
  }

  static daemon::LoaderRequest AttachLoop(uint32_t slot, uint64_t nonce) {
    daemon::LoaderRequest request;
    request.mutable_attach_loop()->set_gate_slot(slot);
    request.mutable_attach_loop()->set_gate_nonce(nonce);
    request.mutable_attach_loop()->set_until_ns(INT64_MAX);
    return request;
  }
  static daemon::LoaderRequest Enroll(uint32_t slot, uint64_t nonce) {
    daemon::LoaderRequest request;
    request.mutable_enroll()->set_gate_slot(slot);
    request.mutable_enroll()->set_gate_nonce(nonce);
    request.mutable_enroll()->set_until_ns(INT64_MAX);
    return request;
  }
  static daemon::LoaderRequest Dismiss(uint32_t slot, uint64_t nonce) {
    daemon::LoaderRequest request;
    request.mutable_dismiss()->set_gate_slot(slot);
    request.mutable_dismiss()->set_gate_nonce(nonce);
    return request;
  }
  // Whether the fd is of that kind: "bpf-prog", "bpf-map".
  static bool IsBpf(int fd, const std::string& kind) {
    return std::filesystem::read_symlink(absl::StrCat("/proc/self/fd/", fd)) ==
           "anon_inode:" + kind;
  }

  // That the loader answers as it should, and holds what it held before.
  void ExpectNothingLoaded() {
    // It closes what it sent a moment after that is here.
    EXPECT_TRUE(WaitUntil([&] { return HeldBy(loader_) == held_; }, kPatience))
        << HeldBy(loader_).Describe();
    EXPECT_TRUE(IsRunning(loader_));
    EXPECT_EQ(gates_[kGateSlots - 1].nonce, 42u);
  }
  // That it takes `bytes` for the end of all trust: it ends, with every gate
  // closed.
  void ExpectTheEnd(const std::string& bytes,
                    const std::vector<int>& fds = {}) {
    ASSERT_TRUE(SendPacket(broker_.get(), bytes, fds).ok());
    int status = -1;
    ASSERT_TRUE(
        WaitUntil([&] { return waitpid(loader_, &status, WNOHANG) == loader_; },
                  kPatience));
    loader_ = -1;
    EXPECT_EQ(status, W_EXITCODE(1, 0));
    for (uint32_t slot = 0; slot < kGateSlots; ++slot) {
      ASSERT_EQ(gates_[slot].nonce, 0u) << slot;
    }
  }
  std::string Numbered(daemon::LoaderRequest request) {
    request.set_id(++id_);
    return request.SerializeAsString();
  }

  PrivateFolder catalog_, policy_;
  UniqueFd broker_;
  UniqueFd keeper_;  // of grace periods
  pid_t loader_ = -1;
  uint64_t id_ = 0;
  bpfgrant_gate_entry* gates_ = nullptr;
  std::map<std::string, std::string> identities_;  // by program
  KernelObjects held_;
};

TEST_F(BrokerTakenOverTest, LoadsOnlyWhatIsApproved) {
  const auto reason = [this](const daemon::LoaderRequest& request) {
    const Answer answer = Ask(request);
    EXPECT_THAT(answer.fds, IsEmpty());
    return answer.reason();
  };
  for (const char* name :
       {"", "sampler", "packet_sampler.bpf.o", "../catalog/packet_sampler",
        "/etc/passwd", "packet_sampler\n"}) {
    EXPECT_EQ(reason(Load(name)), v1::REASON_UNKNOWN_PROGRAM) << name;
  }
  daemon::LoaderRequest other = Load("packet_sampler");
  other.mutable_load()->set_identity(std::string(64, 'a'));
  EXPECT_EQ(reason(other), v1::REASON_PROGRAM_UNAVAILABLE);
  other.mutable_load()->clear_identity();
  EXPECT_EQ(reason(other), v1::REASON_PROGRAM_UNAVAILABLE);
  EXPECT_EQ(reason(Load("packet_sampler", kGateSlots)),
            v1::REASON_INVALID_ARGUMENT);
  EXPECT_EQ(reason(Load("packet_sampler", UINT32_MAX)),
            v1::REASON_INVALID_ARGUMENT);
  // A nonce that a closed gate would hold.
  EXPECT_EQ(reason(Load("packet_sampler", 3, 0)), v1::REASON_INVALID_ARGUMENT);
  ExpectNothingLoaded();
}

// It gets the catalog's programs and no right beyond those of a client.
TEST_F(BrokerTakenOverTest, GetsHandlesWithAClientsRights) {
  const Answer answer = Ask(Load("packet_sampler"));
  ASSERT_TRUE(answer.message.has_load()) << answer.message.ShortDebugString();
  ASSERT_EQ(answer.fds.size(), 4u);
  EXPECT_EQ(fcntl(answer.fds[3].get(), F_GETFL) & O_ACCMODE, O_RDONLY);
  ExpectNothingLoaded();
}

TEST_F(BrokerTakenOverTest, AttachesOnlyProgramsOfThatTypeToSockets) {
  const Answer sampler = Ask(Load("packet_sampler"));
  ASSERT_EQ(sampler.fds.size(), 4u);
  const int program = sampler.fds[0].get();
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const UniqueFd file(open("/etc/hostname", O_RDONLY | O_CLOEXEC));
  const UniqueFd memory(memfd_create("x", MFD_CLOEXEC));
  for (const int no_program : {sampler.fds[1].get(), socket.get(), file.get(),
                               memory.get(), broker_.get()}) {
    EXPECT_EQ(Attach(no_program, socket.get()), v1::REASON_INVALID_ARGUMENT);
  }
  for (const int no_socket : {program, sampler.fds[1].get(), file.get()}) {
    EXPECT_EQ(Attach(program, no_socket), v1::REASON_SOCKET_UNSUITABLE);
  }
  daemon::LoaderRequest other;
  other.mutable_attach()->set_program("reuseport_steer");
  other.mutable_attach()->set_until_ns(INT64_MAX);
  EXPECT_EQ(Ask(other, {program, socket.get()}).reason(),
            v1::REASON_INVALID_ARGUMENT);
  other.mutable_attach()->set_program("nothing");
  other.mutable_attach()->set_until_ns(INT64_MAX);
  EXPECT_EQ(Ask(other, {program, socket.get()}).reason(),
            v1::REASON_UNKNOWN_PROGRAM);
  ExpectNothingLoaded();
}

// Many reloads and many loads at once, their replies unread: the loader serves
// them all, one after the other, and keeps none.
TEST_F(BrokerTakenOverTest, FloodsAreServedInTurn) {
  constexpr int kReloads = 10, kLoads = 200;
  std::vector<std::string> packets;
  daemon::LoaderRequest reload;
  reload.mutable_reload();
  for (int i = 0; i < kReloads; ++i) packets.push_back(Numbered(reload));
  for (int i = 0; i < kLoads; ++i) {
    packets.push_back(Numbered(Load("packet_sampler")));
  }
  size_t sent = 0, answered = 0;
  while (answered < packets.size()) {
    while (sent < packets.size() &&
           SendPacket(broker_.get(), packets[sent], {}).ok()) {
      ++sent;
    }
    const Answer answer = Receive();
    ASSERT_NE(answer.message.body_case(), daemon::LoaderReply::BODY_NOT_SET);
    ++answered;
  }
  ExpectNothingLoaded();
}

TEST_F(BrokerTakenOverTest, RubbishEndsIt) { ExpectTheEnd("\xff\xff\xff"); }

TEST_F(BrokerTakenOverTest, ARequestForNothingEndsIt) {
  ExpectTheEnd(Numbered(daemon::LoaderRequest()));
}

TEST_F(BrokerTakenOverTest, ARequestWithoutANumberEndsIt) {
  ExpectTheEnd(Load("packet_sampler").SerializeAsString());
}

TEST_F(BrokerTakenOverTest, FdsBesideALoadEndIt) {
  ExpectTheEnd(Numbered(Load("packet_sampler")), {0});
}

TEST_F(BrokerTakenOverTest, TooManyFdsEndIt) {
  daemon::LoaderRequest attach;
  attach.mutable_attach()->set_program("packet_sampler");
  attach.mutable_attach()->set_until_ns(INT64_MAX);
  ExpectTheEnd(Numbered(attach), {0, 1, 2});
}

TEST_F(BrokerTakenOverTest, AnAttachmentWithoutASocketEndsIt) {
  daemon::LoaderRequest attach;
  attach.mutable_attach()->set_program("packet_sampler");
  attach.mutable_attach()->set_until_ns(INT64_MAX);
  ExpectTheEnd(Numbered(attach), {0});
}

TEST_F(BrokerTakenOverTest, AnAttachmentOfALoopWithoutAProcessEndsIt) {
  ExpectTheEnd(Numbered(AttachLoop(3, 7)));
}

TEST_F(BrokerTakenOverTest, FdsBesideADetachmentEndIt) {
  daemon::LoaderRequest detach;
  detach.mutable_detach_loop()->set_gate_slot(3);
  detach.mutable_detach_loop()->set_gate_nonce(7);
  ExpectTheEnd(Numbered(detach), {0});
}

// Nor does it get anything by a number that it made up, or by a process that is
// none.
TEST_F(BrokerTakenOverTest, AttachesOnlyLoopsThatWereLoadedToProcesses) {
  const UniqueFd self(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
  const UniqueFd file(open("/etc/hostname", O_RDONLY | O_CLOEXEC));
  for (const int beside : {self.get(), file.get(), broker_.get()}) {
    EXPECT_EQ(Ask(AttachLoop(3, 7), {beside}).reason(),
              v1::REASON_UNKNOWN_GRANT);
  }
  daemon::LoaderRequest detach;
  detach.mutable_detach_loop()->set_gate_slot(kGateSlots);
  detach.mutable_detach_loop()->set_gate_nonce(1);
  EXPECT_TRUE(Ask(detach).message.has_detach_loop());
  ExpectNothingLoaded();
}

TEST_F(BrokerTakenOverTest, IsNotGivenALoopsProgram) {
  BPFGRANT_REQUIRE_KERNEL(KernelHasLoops(), "io_uring loops");
  const Answer loop = Ask(Load("relay"));
  ASSERT_TRUE(loop.message.has_load()) << loop.message.ShortDebugString();
  for (const UniqueFd& fd : loop.fds) {
    EXPECT_TRUE(IsBpf(fd.get(), "bpf-map"));
  }
  const UniqueFd file(open("/etc/hostname", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(Ask(AttachLoop(3, 7), {file.get()}).reason(),
            v1::REASON_RING_NOT_YOURS);
  // A loop is for one ring; also for one that it did not get.
  EXPECT_EQ(Ask(AttachLoop(3, 7), {file.get()}).reason(),
            v1::REASON_UNKNOWN_GRANT);
  daemon::LoaderRequest detach;
  detach.mutable_detach_loop()->set_gate_slot(3);
  detach.mutable_detach_loop()->set_gate_nonce(7);
  EXPECT_TRUE(Ask(detach).message.has_detach_loop());
}

TEST_F(BrokerTakenOverTest, AnEnrolmentWithoutAProcessEndsIt) {
  ExpectTheEnd(Numbered(Enroll(3, 7)));
}

TEST_F(BrokerTakenOverTest, FdsBesideADismissalEndIt) {
  ExpectTheEnd(Numbered(Dismiss(3, 7)), {0});
}

TEST_F(BrokerTakenOverTest, EnrollsOnlyProcessesAndOnlyWhatWasLoaded) {
  const UniqueFd self(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
  const UniqueFd file(open("/etc/hostname", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(Ask(Enroll(3, 7), {self.get()}).reason(), v1::REASON_UNKNOWN_GRANT);
  EXPECT_TRUE(Ask(Dismiss(kGateSlots, 1)).message.has_dismiss());
  ExpectNothingLoaded();

  const Answer traced = Ask(Load("io_latency"));
  ASSERT_TRUE(traced.message.has_load()) << traced.message.ShortDebugString();
  for (const UniqueFd& fd : traced.fds) {
    EXPECT_TRUE(IsBpf(fd.get(), "bpf-map"));
  }
  // Its maps are not mixed with another grant's.
  EXPECT_EQ(Ask(Load("io_latency", 3, 8)).reason(),
            v1::REASON_INVALID_ARGUMENT);
  EXPECT_EQ(Ask(Enroll(3, 8), {self.get()}).reason(), v1::REASON_UNKNOWN_GRANT);
  EXPECT_EQ(Ask(Enroll(3, 7), {file.get()}).reason(), v1::REASON_LOAD_FAILED);
  EXPECT_TRUE(Ask(Enroll(3, 7), {self.get()}).message.has_enroll());
  EXPECT_EQ(Ask(Enroll(3, 7), {self.get()}).reason(), v1::REASON_UNKNOWN_GRANT);
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(Ask(Dismiss(3, 7)).message.has_dismiss());
  }
  ExpectNothingLoaded();
}

TEST_F(BrokerTakenOverTest, AnOversizedPacketEndsIt) {
  ExpectTheEnd(std::string(kMaxFrameBytes + 1, 'x'));
}

}  // namespace
}  // namespace bpfgrant::test
