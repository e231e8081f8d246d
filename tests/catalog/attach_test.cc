#include "daemon/loader/attach.h"

#include <bpf/bpf.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <functional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "daemon/loader/instance.h"
#include "tests/catalog/catalog_fixture.h"
#include "tests/privileged/tun_device.h"

namespace bpfgrant::daemon {
namespace {

using std::chrono::milliseconds;

class AttachTest : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRE_BPF();
    gate_.reset(MakeGate(0, 1));
    folder_.WriteProgram("sample");
    folder_.WriteProgram("steer", "steer");
    filter_ = Load("sample");
    steer_ = Load("steer");
  }
  Instance Load(const std::string& name) {
    const auto program = AdmitFrom(folder_.path(), name);
    EXPECT_TRUE(program->available()) << RefusalFor(*program);
    auto instance = LoadInstance(*program, {gate_.get()}, 0, 1, {});
    EXPECT_TRUE(instance.ok()) << instance.status();
    return *std::move(instance);
  }
  static UniqueFd Copy(int fd) { return UniqueFd(dup(fd)); }
  static std::vector<Attacher::Result> Wait(Attacher& attacher) {
    std::vector<Attacher::Result> all;
    while (attacher.pending() > 0) {
      std::vector<pollfd> polled;
      attacher.AddTo(polled);
      poll(polled.data(), polled.size(), 10);
      for (auto& result : attacher.Collect()) all.push_back(std::move(result));
    }
    return all;
  }
  absl::Status Attach(const UniqueFd& program, int socket, v1::Target target,
                      const Mitigations& mitigations = {}) {
    Attacher attacher(mitigations);
    attacher.Start(1, 1, Copy(program.get()), Copy(socket), target);
    const auto results = Wait(attacher);
    EXPECT_EQ(results.size(), 1u);
    return results.at(0).status;
  }
  static UniqueFd Udp(bool reuseport = false) {
    UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const int on = 1;
    if (reuseport) {
      setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
    }
    return fd;
  }
  static bool Detaches(int socket) {
    const int on = 1;
    return setsockopt(socket, SOL_SOCKET, SO_DETACH_BPF, &on, sizeof(on)) == 0;
  }
  // Of two attachments to what `make` makes, the first of which hangs.
  void ExpectTheStuckToTimeOut(v1::Target target,
                               const std::function<UniqueFd()>& make);

  TemporaryFolder folder_;
  UniqueFd gate_;
  Instance filter_, steer_;
};

TEST_F(AttachTest, FiltersAndLocks) {
  const UniqueFd socket = Udp();
  EXPECT_TRUE(Attach(filter_.program, socket.get(), v1::TARGET_SOCKET).ok());
  EXPECT_FALSE(Detaches(socket.get()));
  EXPECT_EQ(errno, EPERM);
  EXPECT_THAT(Attach(filter_.program, socket.get(), v1::TARGET_SOCKET),
              Refused(v1::REASON_ATTACH_FAILED, "locked"));
}

// The attack: the client takes the filter off again.
TEST_F(AttachTest, WithoutTheLock) {
  Mitigations off;
  off.lock_filter = false;
  const UniqueFd socket = Udp();
  EXPECT_TRUE(
      Attach(filter_.program, socket.get(), v1::TARGET_SOCKET, off).ok());
  EXPECT_TRUE(Detaches(socket.get()));
}

TEST_F(AttachTest, TheAttachedFilterObeysItsGate) {
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair), 0);
  const UniqueFd reader(pair[0]), writer(pair[1]);
  ASSERT_TRUE(Attach(filter_.program, reader.get(), v1::TARGET_SOCKET).ok());
  char buffer[8];
  ASSERT_EQ(send(writer.get(), "open", 4, 0), 4);
  EXPECT_EQ(recv(reader.get(), buffer, sizeof(buffer), MSG_DONTWAIT), 4);
  const uint32_t slot = 0;
  const uint64_t closed = 0;
  ASSERT_EQ(bpf_map_update_elem(gate_.get(), &slot, &closed, BPF_ANY), 0);
  EXPECT_EQ(send(writer.get(), "shut", 4, 0), 4);
  EXPECT_EQ(recv(reader.get(), buffer, sizeof(buffer), MSG_DONTWAIT), -1);
}

TEST_F(AttachTest, Reuseport) {
  const UniqueFd socket = Udp(true);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(bind(socket.get(), reinterpret_cast<sockaddr*>(&address),
                 sizeof(address)),
            0);
  EXPECT_TRUE(Attach(steer_.program, socket.get(), v1::TARGET_REUSEPORT).ok());
}

TEST_F(AttachTest, WhatIsNoSocket) {
  const UniqueFd file(open("/dev/null", O_RDWR | O_CLOEXEC));
  EXPECT_THAT(Attach(filter_.program, file.get(), v1::TARGET_SOCKET),
              Refused(v1::REASON_SOCKET_UNSUITABLE, "not a socket"));
}

TEST_F(AttachTest, SocketsOfAnotherKind) {
  const UniqueFd plain = Udp();
  EXPECT_THAT(Attach(steer_.program, plain.get(), v1::TARGET_REUSEPORT),
              Refused(v1::REASON_SOCKET_UNSUITABLE, "of this kind"));
  const UniqueFd unix_socket(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_THAT(Attach(steer_.program, unix_socket.get(), v1::TARGET_REUSEPORT),
              Refused(v1::REASON_SOCKET_UNSUITABLE, "of this kind"));
}

TEST_F(AttachTest, MoreThanThereAreChildren) {
  constexpr size_t kCount = 3 * Children::kMaxChildren;
  Attacher attacher({});
  std::vector<UniqueFd> sockets;
  for (size_t i = 0; i < kCount; ++i) {
    sockets.push_back(Udp());
    attacher.Start(i, i, Copy(filter_.program.get()),
                   Copy(sockets.back().get()), v1::TARGET_SOCKET);
  }
  std::set<uint64_t> ids;
  for (const auto& result : Wait(attacher)) {
    EXPECT_TRUE(result.status.ok()) << result.status;
    ids.insert(result.id);
  }
  EXPECT_EQ(ids.size(), kCount);
}

// Stops the children of this process; stands for ones that hang in the kernel.
void StopChildren() {
  std::ifstream children("/proc/thread-self/children");
  for (pid_t pid; children >> pid;) kill(pid, SIGSTOP);
}

void AttachTest::ExpectTheStuckToTimeOut(
    v1::Target target, const std::function<UniqueFd()>& make) {
  for (int attempt = 0; attempt < 20; ++attempt) {
    Attacher attacher({}, milliseconds(400));
    attacher.Start(1, 1, Copy(filter_.program.get()), make(), target);
    StopChildren();
    const auto begun = Children::Clock::now();
    attacher.Start(2, 2, Copy(filter_.program.get()), make(), target);
    const auto results = Wait(attacher);
    ASSERT_EQ(results.size(), 2u);
    // The first child may have been quicker than the signal.
    if (results[0].id == 1) continue;
    EXPECT_TRUE(results[0].status.ok()) << results[0].status;
    EXPECT_THAT(results[1].status,
                Refused(v1::REASON_ATTACH_FAILED, "timed out"));
    EXPECT_GE(Children::Clock::now() - begun, milliseconds(350));
    EXPECT_LT(Children::Clock::now() - begun, milliseconds(3000));
    return;
  }
  FAIL() << "no child was ever stopped in time";
}

TEST_F(AttachTest, AChildThatHangsTimesOutAndHoldsUpNobody) {
  ExpectTheStuckToTimeOut(v1::TARGET_SOCKET, [] { return Udp(); });
}

// Devices in a network of their own.
class AttachToTunTest : public AttachTest {
 protected:
  void SetUp() override {
    AttachTest::SetUp();
    if (IsSkipped()) return;
    if (!test::TunDevice::InThisKernel()) {
      GTEST_SKIP() << "kernel: no tun devices (CONFIG_TUN)";
    }
  }
  static UniqueFd Queue(int flags) {
    UniqueFd queue;
    std::thread([&] {
      ASSERT_EQ(unshare(CLONE_NEWNET), 0);
      queue = test::TunDevice::Open(flags);
      ASSERT_TRUE(queue.valid());
    }).join();
    return queue;
  }
};

TEST_F(AttachToTunTest, OfEveryKind) {
  for (const int flags : {IFF_TUN, IFF_TAP, IFF_TUN | IFF_MULTI_QUEUE,
                          IFF_TAP | IFF_MULTI_QUEUE | IFF_VNET_HDR}) {
    const UniqueFd queue = Queue(flags);
    const absl::Status status =
        Attach(filter_.program, queue.get(), v1::TARGET_TUN);
    EXPECT_TRUE(status.ok()) << flags << ": " << status;
    // There is no lock: the next one replaces it.
    EXPECT_TRUE(Attach(filter_.program, queue.get(), v1::TARGET_TUN).ok());
  }
}

TEST_F(AttachToTunTest, WhatIsNoneSaysWhy) {
  const auto attach = [&](const UniqueFd& fd) {
    return Attach(filter_.program, fd.get(), v1::TARGET_TUN);
  };
  EXPECT_THAT(attach(Udp()),
              Refused(v1::REASON_TUN_UNSUITABLE, "not one of /dev/net/tun"));
  EXPECT_THAT(attach(UniqueFd(open("/dev/null", O_RDWR | O_CLOEXEC))),
              Refused(v1::REASON_TUN_UNSUITABLE, "not one of /dev/net/tun"));
  EXPECT_THAT(attach(UniqueFd(open("/dev/net/tun", O_RDWR | O_CLOEXEC))),
              Refused(v1::REASON_TUN_UNSUITABLE, "no tun or tap device"));
  EXPECT_THAT(attach(UniqueFd(open("/dev/net/tun", O_PATH | O_CLOEXEC))),
              Refused(v1::REASON_TUN_UNSUITABLE, "O_PATH"));
  const UniqueFd detached = Queue(IFF_TUN | IFF_MULTI_QUEUE);
  ifreq request{};
  request.ifr_flags = IFF_DETACH_QUEUE;
  ASSERT_EQ(ioctl(detached.get(), TUNSETQUEUE, &request), 0);
  EXPECT_THAT(attach(detached),
              Refused(v1::REASON_TUN_UNSUITABLE, "IFF_DETACH_QUEUE"));
}

TEST_F(AttachToTunTest, AProgramOfAnotherType) {
  EXPECT_THAT(Attach(steer_.program, Queue(IFF_TUN).get(), v1::TARGET_TUN),
              Refused(v1::REASON_TUN_UNSUITABLE, "takes no such program"));
}

TEST_F(AttachToTunTest, AChildThatHangsTimesOutAndHoldsUpNobody) {
  const UniqueFd queue = Queue(IFF_TUN);
  ExpectTheStuckToTimeOut(v1::TARGET_TUN, [&] { return Copy(queue.get()); });
}

TEST_F(AttachTest, LeavesNoChildBehind) {
  // An attacher that ends does not wait for its children.
  while (waitpid(-1, nullptr, 0) > 0) {
  }
  {
    Attacher attacher({});
    const UniqueFd socket = Udp();
    for (int i = 0; i < 10; ++i) {
      attacher.Start(i, i, Copy(filter_.program.get()), Copy(socket.get()),
                     v1::TARGET_SOCKET);
    }
    Wait(attacher);
    // Killed children are reaped as they end.
    for (int i = 0; i < 100 && attacher.NextDeadline().has_value(); ++i) {
      usleep(10'000);
      attacher.Collect();
    }
    EXPECT_FALSE(attacher.NextDeadline().has_value());
  }
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

}  // namespace
}  // namespace bpfgrant::daemon
