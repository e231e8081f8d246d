// tun_steering attached by the daemon: to whose device, what stays, and what is
// no device.

#include <linux/bpf.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bpf-programs/tun_steering/tun_steering.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/process_tree.h"
#include "tests/harness/skip.h"
#include "tests/privileged/client_fixture.h"
#include "tests/privileged/rss_vectors.h"
#include "tests/privileged/tun_device.h"

namespace bpfgrant::test {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Key;
using ::testing::Not;
using ::testing::StartsWith;

// Makes a device in a network of its own, for `use` to use there.
template <typename Use>
void InItsOwnNetwork(int queues, Use use) {
  std::thread([&] {
    TunDevice device;
    ASSERT_NO_FATAL_FAILURE(device.Make(queues));
    use(device);
  }).join();
}

UniqueFd OpenNode(int flags) {
  return UniqueFd(open("/dev/net/tun", flags | O_CLOEXEC));
}

class TunAttachTest : public ClientTest {
 protected:
  void SetUp() override {
    ClientTest::SetUp();
    if (IsSkipped()) return;
    BPFGRANT_REQUIRE_KERNEL(TunDevice::InThisKernel(),
                            "tun devices (CONFIG_TUN)");
    InItsOwnNetwork(1, [this](TunDevice& device) {
      queue_.reset(dup(device.queues().front().get()));
      detached_ = TunDevice::Open(IFF_TUN | IFF_MULTI_QUEUE);
    });
    ASSERT_TRUE(detached_.valid());
    ifreq detach{};
    detach.ifr_flags = IFF_DETACH_QUEUE;
    ASSERT_EQ(ioctl(detached_.get(), TUNSETQUEUE, &detach), 0);
  }

  void StartWith(const std::string& policy = kAllowAll,
                 const std::vector<std::string>& without = {}) {
    DaemonOptions options;
    options.policy = policy;
    options.programs = {"packet_sampler", "tun_steering"};
    options.without = without;
    ASSERT_NO_FATAL_FAILURE(Start(options));
  }
  // A client that has `fds` among its sockets, from number 0 on.
  std::unique_ptr<Nobody> ClientWith(const std::vector<int>& fds) {
    constexpr int kFirst = 10;
    UnprivilegedOptions options = Nobody::Options();
    for (size_t i = 0; i < fds.size(); ++i) {
      options.fds.emplace_back(fds[i], kFirst + static_cast<int>(i));
    }
    auto client = std::make_unique<Nobody>(options);
    for (const auto& [ours, theirs] : options.fds) {
      client->Do(absl::StrCat("adopt ", theirs));
    }
    return client;
  }

  UniqueFd queue_;
  UniqueFd detached_;  // a queue of the same device (IFF_DETACH_QUEUE)
};

TEST_F(TunAttachTest, ToADevice) {
  ASSERT_NO_FATAL_FAILURE(StartWith());
  const Resting before = Rest();
  {
    const auto client = ClientWith({queue_.get()});
    Connect(*client);
    const Acquired acquired = client->Acquire("tun_steering attach socket=0");
    EXPECT_EQ(acquired.delivery, "attach");
    EXPECT_THAT(acquired.ids, Not(Contains(Key("program"))));
    EXPECT_THAT(acquired.ids, Contains(Key("indirection")));
    EXPECT_EQ(client->Ask("acquire tun_steering attach"),
              "refused socket-needed");
  }
  queue_.reset();
  detached_.reset();
  ExpectRestsAs(before);
}

TEST_F(TunAttachTest, IsSaidOfTheProgram) {
  ASSERT_NO_FATAL_FAILURE(StartWith());
  const auto steering = administrator().Describe("tun_steering");
  ASSERT_TRUE(steering.ok()) << steering.status();
  EXPECT_EQ(steering->detail().target(), v1::TARGET_TUN);
  EXPECT_THAT(steering->irrevocable(), HasSubstr("a device with the program"));
  const auto sampler = administrator().Describe("packet_sampler");
  ASSERT_TRUE(sampler.ok()) << sampler.status();
  EXPECT_EQ(sampler->detail().target(), v1::TARGET_SOCKET);
}

TEST_F(TunAttachTest, ToNothingElse) {
  ASSERT_NO_FATAL_FAILURE(StartWith());
  const Resting before = Rest();
  {
    const UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
    const UniqueFd without_device = OpenNode(O_RDWR);
    const UniqueFd path_only = OpenNode(O_PATH);
    const auto client = ClientWith(
        {null.get(), without_device.get(), path_only.get(), detached_.get()});
    Connect(*client);
    for (const char* kind :
         {"udp", "unix-stream", "pipe", "file", "path-only"}) {
      client->Do(absl::StrCat("open ", kind));
    }
    for (int number = 0; number < 9; ++number) {
      EXPECT_EQ(client->Ask(absl::StrCat("acquire tun_steering attach socket=",
                                         number)),
                "refused tun-unsuitable")
          << number;
    }
    EXPECT_EQ(Status().grants(), 0u);
  }
  ExpectRestsAs(before);
}

TEST_F(TunAttachTest, ASocketsProgramDoesNotGoOnADevice) {
  ASSERT_NO_FATAL_FAILURE(StartWith());
  const auto client = ClientWith({queue_.get()});
  Connect(*client);
  EXPECT_EQ(client->Ask("acquire packet_sampler attach socket=0"),
            "refused socket-unsuitable");
  EXPECT_EQ(Status().grants(), 0u);
}

TEST_F(TunAttachTest, TwoDevicesAreOneTooMany) {
  ASSERT_NO_FATAL_FAILURE(StartWith());
  const Resting before = Rest();
  {
    const auto client = ClientWith({queue_.get(), detached_.get()});
    client->Do("raw-connect " + daemon().broker_socket());
    client->Do("raw-hello");
    client->Do("raw-receive");
    client->Do("raw-acquire tun_steering 0 1");
    EXPECT_EQ(client->Ask("raw-receive"), "refused unexpected-fds");
    EXPECT_EQ(Status().grants(), 0u);
  }
  ExpectRestsAs(before);
}

TEST_F(TunAttachTest, AClientIsKilledInTheMiddle) {
  ASSERT_NO_FATAL_FAILURE(StartWith());
  const Resting before = Rest();
  for (int delay_us = 0; delay_us <= 4000; delay_us += 500) {
    const auto client = ClientWith({queue_.get()});
    client->Do("raw-connect " + daemon().broker_socket());
    client->Do("raw-hello");
    client->Do("raw-receive");
    client->Tell("raw-acquire tun_steering 0");
    usleep(static_cast<useconds_t>(delay_us));
    client->KillAndReap();
  }
  ExpectRestsAs(before);
  EXPECT_EQ(Status().grants(), 0u);
  // The device is as good as before.
  const auto client = ClientWith({queue_.get()});
  Connect(*client);
  EXPECT_EQ(client->Acquire("tun_steering attach socket=0").delivery, "attach");
}

// As the client could with the handle: all packets go there.
void SetDefaultQueue(uint32_t config, uint16_t queue) {
  bpf_attr attributes{};
  attributes.map_id = config;
  const UniqueFd map(static_cast<int>(
      syscall(SYS_bpf, BPF_MAP_GET_FD_BY_ID, &attributes, sizeof(attributes))));
  const uint32_t key = 0;
  const tun_steering_config value{.default_queue = queue};
  attributes = {};
  attributes.map_fd = static_cast<uint32_t>(map.get());
  attributes.key = reinterpret_cast<uintptr_t>(&key);
  attributes.value = reinterpret_cast<uintptr_t>(&value);
  ASSERT_EQ(
      syscall(SYS_bpf, BPF_MAP_UPDATE_ELEM, &attributes, sizeof(attributes)),
      0);
}

// A device that outlives its owner.
class PersistentTunTest : public TunAttachTest {
 protected:
  // Has a client choose queue 1 of two and killed; the device is closed then,
  // and opened again. Returns the queue that a packet arrives in.
  int QueueAfterTheEnd(TunDevice& device) {
    const int queue = device.queues().front().get();
    EXPECT_EQ(ioctl(queue, TUNSETPERSIST, 1), 0);
    {
      const auto client = ClientWith({queue});
      Connect(*client);
      const Acquired acquired = client->Acquire("tun_steering attach socket=0");
      SetDefaultQueue(acquired.ids.at("config"), 1);
      EXPECT_EQ(device.Inject(Frame(kRssVectors[0])), 1);
      client->KillAndReap();
    }
    device.CloseQueues();
    EXPECT_TRUE(WaitUntil([&] { return Status().held() == 1; }, kPatience));
    device.OpenQueues(2);
    int arrived = -1;
    // The kernel lets packets pass a moment after the first queue is there.
    WaitUntil(
        [&] {
          arrived = device.Inject(Frame(kRssVectors[0]));
          return arrived >= 0;
        },
        kPatience);
    EXPECT_EQ(ioctl(device.queues().front().get(), TUNSETPERSIST, 0), 0);
    return arrived;
  }
  // What the kernel still has of the one grant there was.
  std::string Held() {
    std::string held;
    WaitUntil(
        [&] {
          const auto grants = administrator().Grants();
          if (!grants.ok() || grants->grant_size() != 1) return false;
          held = grants->grant(0).held();
          return !held.empty();
        },
        kPatience);
    return held;
  }
};

TEST_F(PersistentTunTest, KeepsAProgramThatSteersNoMore) {
  ASSERT_NO_FATAL_FAILURE(StartWith());
  InItsOwnNetwork(2, [this](TunDevice& device) {
    EXPECT_EQ(QueueAfterTheEnd(device), 0);
    EXPECT_THAT(Held(), HasSubstr("tun_steering"));
    // Whoever has a queue takes it off; then it counts no more.
    EXPECT_EQ(device.Steer(-1), 0);
    EXPECT_TRUE(WaitUntil([&] { return Status().held() == 0; }, kPatience));
  });
}

TEST_F(PersistentTunTest, KeepsAProgramThatSteersOnWithoutTheGate) {
  ASSERT_NO_FATAL_FAILURE(StartWith(kAllowAll, {"gate_closes"}));
  InItsOwnNetwork(
      2, [this](TunDevice& device) { EXPECT_EQ(QueueAfterTheEnd(device), 1); });
}

constexpr char kUntrusted[] = R"(
rule {
  name: "untrusted"
  effect: ALLOW
  everyone: true
  program: "*"
  quota { grants: 64 }
}
)";

TEST_F(TunAttachTest, WhomNoRuleTrustsIsGivenNoProgramWhereThatIsDangerous) {
  ASSERT_NO_FATAL_FAILURE(StartWith(kUntrusted));
  const bool dangerous = Status().kernel().preemptible();
  const auto client = ClientWith({queue_.get()});
  Connect(*client);
  EXPECT_EQ(client->Acquire("tun_steering any socket=0").delivery,
            dangerous ? "attach" : "program");
  const std::string answer = client->Ask("acquire tun_steering program");
  EXPECT_EQ(answer == "refused delivery-dangerous", dangerous) << answer;
  v1::ExplainRequest request;
  request.set_program("tun_steering");
  const auto explained = administrator().Explain(request);
  ASSERT_TRUE(explained.ok()) << explained.status();
  EXPECT_THAT(explained->delivery(),
              StartsWith(dangerous ? "ATTACH to a tun device: " : "PROGRAM: "));
}

TEST_F(TunAttachTest, WhomNoRuleTrustsIsGivenItWithoutTheMitigation) {
  ASSERT_NO_FATAL_FAILURE(StartWith(kUntrusted, {"dangerous_program_fd"}));
  const auto client = ClientWith({queue_.get()});
  Connect(*client);
  EXPECT_EQ(client->Acquire("tun_steering any socket=0").delivery, "program");
  EXPECT_THAT(client->Ask("run 0 1"), StartsWith("ok "));
}

}  // namespace
}  // namespace bpfgrant::test
