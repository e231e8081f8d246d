// reuseport_steer on real packets of the loopback interface.

#include "bpf-programs/reuseport_steer/reuseport_steer.h"

#include <bpf/bpf.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/harness/skip.h"
#include "tests/privileged/loaded_program.h"
#include "tests/privileged/loopback.h"

namespace bpfgrant::test {
namespace {

using Config = reuseport_steer_config;
using Counters = reuseport_steer_counters;

constexpr uint32_t kSockets = 4;

// The hash that reuseport_steer.bpf.c and its README.md promise.
uint32_t SlotOf(const std::string& id, uint32_t seed, uint32_t sockets) {
  uint32_t hash = 2166136261u ^ seed;
  for (const unsigned char byte : id) hash = (hash ^ byte) * 16777619u;
  hash ^= hash >> 16;
  hash *= 0x85ebca6bu;
  hash ^= hash >> 13;
  hash *= 0xc2b2ae35u;
  hash ^= hash >> 16;
  return static_cast<uint32_t>(uint64_t{hash} * sockets >> 32);
}

std::string Id(int number) {
  std::string id = "connection";
  id.resize(12);
  id[10] = static_cast<char>(number & 0xff);
  id[11] = static_cast<char>(number >> 8);
  return id;
}

class ReuseportSteerTest : public PrivilegedTest {
 protected:
  // A group of sockets, all of them in `sockets`, and ids of 12 bytes behind
  // the first byte of the payload.
  void Load(const LoadOptions& options = {}) {
    program_ = LoadedProgram::Load("reuseport_steer", options);
    ASSERT_NE(program_, nullptr);
    group_.clear();
    for (uint32_t i = 0; i < kSockets; ++i) {
      group_.push_back(std::make_unique<UdpSocket>(
          i == 0 ? uint16_t{0} : group_[0]->port(), true));
      program_->Write("sockets", i, static_cast<uint64_t>(group_[i]->fd()));
    }
    group_[0]->Attach(SO_ATTACH_REUSEPORT_EBPF, program_->program());
    Configure({.offset = 1, .length = 12, .sockets = kSockets});
  }

  void Configure(const Config& config) { program_->Write("config", 0, config); }
  Counters Count() { return program_->Read<Counters>("counters"); }

  // Sends from a socket of `sender`'s and returns who of the group got it; -1:
  // nobody.
  int ReceiverOf(UdpSocket& sender, const std::string& bytes) {
    sender.SendTo(group_[0]->port(), bytes);
    for (size_t i = 0; i < group_.size(); ++i) {
      if (const auto got = group_[i]->Receive()) {
        EXPECT_EQ(*got, bytes);
        return static_cast<int>(i);
      }
    }
    return -1;
  }
  // The same from a port of its own.
  int ReceiverOf(const std::string& bytes) {
    UdpSocket sender;
    return ReceiverOf(sender, bytes);
  }

  std::unique_ptr<LoadedProgram> program_;
  std::vector<std::unique_ptr<UdpSocket>> group_;
};

TEST_F(ReuseportSteerTest, OneIdOneSocketFromWhereverItComes) {
  Load();
  for (int number = 0; number < 50; ++number) {
    const int expected = static_cast<int>(SlotOf(Id(number), 0, kSockets));
    for (int address = 0; address < 4; ++address) {
      EXPECT_EQ(ReceiverOf("\x40" + Id(number) + "rest"), expected);
    }
  }
  EXPECT_EQ(Count().seen, 200u);
  EXPECT_EQ(Count().steered, 200u);
}

TEST_F(ReuseportSteerTest, IdsSpreadOverAllSockets) {
  Load();
  UdpSocket sender;
  std::map<int, int> load;
  for (int number = 0; number < 1000; ++number) {
    ++load[ReceiverOf(sender, "\x40" + Id(number))];
  }
  ASSERT_EQ(load.size(), kSockets);
  for (const auto& [socket, packets] : load) {
    EXPECT_GE(socket, 0);
    EXPECT_NEAR(packets, 250, 75);  // five standard deviations
  }
}

TEST_F(ReuseportSteerTest, ShortIdsSpreadToo) {
  Load();
  Configure({.offset = 0, .length = 1, .sockets = kSockets});
  std::map<int, int> load;
  for (int byte = 0; byte < 256; ++byte) {
    ++load[ReceiverOf(std::string(1, static_cast<char>(byte)))];
  }
  for (uint32_t i = 0; i < kSockets; ++i) EXPECT_NEAR(load[i], 64, 32);
}

TEST_F(ReuseportSteerTest, SeedChangesThePlaces) {
  Load();
  Configure({.offset = 1, .length = 12, .sockets = kSockets, .seed = 0x5eed});
  int moved = 0;
  for (int number = 0; number < 100; ++number) {
    const int receiver = ReceiverOf("\x40" + Id(number));
    EXPECT_EQ(receiver, static_cast<int>(SlotOf(Id(number), 0x5eed, kSockets)));
    moved += receiver != static_cast<int>(SlotOf(Id(number), 0, kSockets));
  }
  EXPECT_GT(moved, 50);
}

TEST_F(ReuseportSteerTest, LongHeadersHaveTheirIdElsewhere) {
  Load();
  Configure({.offset = 1, .long_offset = 6, .length = 12, .sockets = kSockets});
  for (int number = 0; number < 50; ++number) {
    const int expected = static_cast<int>(SlotOf(Id(number), 0, kSockets));
    EXPECT_EQ(ReceiverOf("\x40" + Id(number)), expected);
    EXPECT_EQ(ReceiverOf("\xc0vers\x0c" + Id(number)), expected);
  }
}

TEST_F(ReuseportSteerTest, PacketsTooShortAreLeftToTheKernel) {
  Load();
  const std::string whole = "\x40" + Id(1);
  UdpSocket sender;
  std::set<int> receivers;
  for (size_t size = 0; size < whole.size(); ++size) {
    receivers.insert(ReceiverOf(sender, whole.substr(0, size)));
  }
  // The kernel goes by addresses and ports: all to one, and that one got them.
  EXPECT_EQ(receivers.size(), 1u);
  EXPECT_EQ(receivers.count(-1), 0u);
  EXPECT_EQ(Count().unsuitable, whole.size());
  EXPECT_EQ(ReceiverOf(sender, whole),
            static_cast<int>(SlotOf(Id(1), 0, kSockets)));
  Configure({.offset = 1, .long_offset = 6, .length = 12, .sockets = kSockets});
  EXPECT_EQ(receivers.count(ReceiverOf(sender, "")), 1u);
  EXPECT_EQ(Count().unsuitable, whole.size() + 1);
}

TEST_F(ReuseportSteerTest, ConfigThatMakesNoSenseIsNone) {
  Load();
  const Config good = {.offset = 1, .length = 12, .sockets = kSockets};
  std::vector<Config> bad(7, good);
  bad[0].length = 0;
  bad[1].length = 21;
  bad[2].length = 0xffffffff;
  bad[3].sockets = 0;
  bad[4].sockets = 65;
  bad[5].offset = 0x10000;
  bad[6].offset = 0xffffffff;
  UdpSocket sender;
  std::set<int> receivers;
  for (const Config& config : bad) {
    Configure(config);
    receivers.insert(ReceiverOf(sender, "\x40" + Id(1)));
  }
  EXPECT_EQ(receivers.size(), 1u);
  EXPECT_EQ(receivers.count(-1), 0u);
  EXPECT_EQ(Count().unconfigured, bad.size());
  Config far = good;
  far.offset = 0xffff;
  Configure(far);
  EXPECT_EQ(receivers.count(ReceiverOf(sender, "\x40" + Id(1))), 1u);
  EXPECT_EQ(Count().unsuitable, 1u);
}

TEST_F(ReuseportSteerTest, EmptySlotIsLeftToTheKernel) {
  Load();
  Configure({.offset = 1, .length = 12, .sockets = 64});
  int empty = 0;
  for (int number = 0; number < 100; ++number) {
    empty += SlotOf(Id(number), 0, 64) >= kSockets;
    EXPECT_NE(ReceiverOf("\x40" + Id(number)), -1);
  }
  EXPECT_GT(empty, 0);
  EXPECT_EQ(Count().no_socket, static_cast<uint64_t>(empty));
  EXPECT_EQ(Count().steered, static_cast<uint64_t>(100 - empty));
}

TEST_F(ReuseportSteerTest, SocketOfAnotherGroupGetsNothing) {
  Load();
  UdpSocket stranger(0, true);
  const std::string id = Id(3);
  const uint32_t slot = SlotOf(id, 0, kSockets);
  program_->Write("sockets", slot, static_cast<uint64_t>(stranger.fd()));
  EXPECT_NE(ReceiverOf("\x40" + id), -1);
  EXPECT_EQ(stranger.Receive(), std::nullopt);
  EXPECT_EQ(Count().no_socket, 1u);
}

TEST_F(ReuseportSteerTest, ClosedSocketLeavesItsSlot) {
  Load();
  const std::string id = Id(3);
  const uint32_t slot = SlotOf(id, 0, kSockets);
  group_.erase(group_.begin() + slot);
  EXPECT_NE(ReceiverOf("\x40" + id), -1);
  EXPECT_EQ(Count().no_socket, 1u);
}

// A holder of its fd cannot make it hold up the kernel: see README.md.
TEST_F(ReuseportSteerTest, CannotBeRunAtWill) {
  Load();
  const char packet[64] = {};
  LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = packet,
              .data_size_in = sizeof(packet), .repeat = 1);
  EXPECT_LT(bpf_prog_test_run_opts(program_->program(), &options), 0);
  EXPECT_EQ(Count().seen, 0u);
}

TEST_F(ReuseportSteerTest, ClosedGateLeavesItToTheKernel) {
  Load({.on_revoke = kPass});
  program_->SetGate(0);
  UdpSocket sender;
  std::set<int> receivers;
  for (int number = 0; number < 50; ++number) {
    receivers.insert(ReceiverOf(sender, "\x40" + Id(number)));
  }
  EXPECT_EQ(receivers.size(), 1u);
  EXPECT_EQ(receivers.count(-1), 0u);
  EXPECT_EQ(Count().seen, 0u);
  program_->SetGate(kNonce);
  EXPECT_EQ(ReceiverOf(sender, "\x40" + Id(1)),
            static_cast<int>(SlotOf(Id(1), 0, kSockets)));
}

TEST_F(ReuseportSteerTest, ClosedGateDrops) {
  Load({.on_revoke = kDrop});
  EXPECT_NE(ReceiverOf("\x40" + Id(1)), -1);
  program_->SetGate(kNonce + 1);
  EXPECT_EQ(ReceiverOf("\x40" + Id(1)), -1);
}

TEST_F(ReuseportSteerTest, NeverWritesItsGate) {
  EXPECT_NE(LoadedProgram::Load("reuseport_steer", {.read_only_gate = true}),
            nullptr);
}

// The holder of the config can rewrite it between any two of its reads.
TEST_F(ReuseportSteerTest, ConfigRewrittenAllTheTime) {
  Load();
  auto* config =
      static_cast<volatile Config*>(program_->Map("config", sizeof(Config)));
  ASSERT_NE(config, nullptr);
  std::atomic<bool> done = false;
  std::thread rewriter([&] {
    for (uint32_t value = 1; !done; value = value * 1664525 + 1013904223) {
      config->offset = value >> (value % 32);
      config->long_offset = value % 8;
      config->length = value % 23;
      config->sockets = value % 67;
      config->seed = value;
    }
  });
  UdpSocket sender;
  for (int i = 0; i < 5000; ++i) {
    ASSERT_NE(ReceiverOf(sender, std::string(i % 90, static_cast<char>(i))),
              -1);
  }
  done = true;
  rewriter.join();
  const Counters count = Count();
  EXPECT_EQ(count.seen, 5000u);
  EXPECT_EQ(
      count.steered + count.unconfigured + count.unsuitable + count.no_socket,
      count.seen);
  munmap(const_cast<Config*>(config), sizeof(Config));
}

}  // namespace
}  // namespace bpfgrant::test
