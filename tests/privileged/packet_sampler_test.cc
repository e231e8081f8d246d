// packet_sampler on real packets of the loopback interface.

#include "bpf-programs/packet_sampler/packet_sampler.h"

#include <bpf/libbpf.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/harness/skip.h"
#include "tests/privileged/loaded_program.h"
#include "tests/privileged/loopback.h"

namespace bpfgrant::test {
namespace {

using Config = packet_sampler_config;
using Counters = packet_sampler_counters;

constexpr size_t kUdpHeader = 8;
// What the ring buffer has room for: each record has a header of 8 bytes, and
// the kernel leaves at least one byte free.
constexpr uint64_t kRoom = (256 * 1024 - 1) / (sizeof(packet_sample) + 8);

uint64_t Now() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

class PacketSamplerTest : public PrivilegedTest {
 protected:
  void Load(const LoadOptions& options = {}) {
    program_ = LoadedProgram::Load("packet_sampler", options);
    ASSERT_NE(program_, nullptr);
    receiver_.Attach(SO_ATTACH_BPF, program_->program());
    samples_.reset(
        ring_buffer__new(program_->map("samples"), &Take, &taken_, nullptr));
    ASSERT_NE(samples_, nullptr);
  }

  void Send(const std::string& bytes) {
    sender_.SendTo(receiver_.port(), bytes);
  }

  std::vector<packet_sample> Samples() {
    taken_.clear();
    EXPECT_GE(ring_buffer__consume(samples_.get()), 0);
    return taken_;
  }

  // Sends one packet and returns the one sample of it.
  packet_sample SampleOf(const std::string& bytes) {
    Send(bytes);
    EXPECT_EQ(receiver_.Receive(), bytes);
    const std::vector<packet_sample> samples = Samples();
    EXPECT_EQ(samples.size(), 1u);
    return samples.empty() ? packet_sample{} : samples.front();
  }

  void Configure(uint32_t snap_length, uint32_t one_in) {
    program_->Write("config", 0, Config{snap_length, one_in});
  }
  Counters Count() { return program_->Read<Counters>("counters"); }

  std::unique_ptr<LoadedProgram> program_;
  UdpSocket receiver_, sender_;

 private:
  static int Take(void* taken, void* data, size_t size) {
    EXPECT_EQ(size, sizeof(packet_sample));
    packet_sample sample{};
    std::memcpy(&sample, data, sizeof(sample));
    static_cast<std::vector<packet_sample>*>(taken)->push_back(sample);
    return 0;
  }
  struct Closer {
    void operator()(ring_buffer* ring) const { ring_buffer__free(ring); }
  };

  std::unique_ptr<ring_buffer, Closer> samples_;
  std::vector<packet_sample> taken_;
};

// Whether the bytes behind those captured are 0, as the header promises.
bool RestIsZero(const packet_sample& sample) {
  for (size_t i = sample.captured; i < sizeof(sample.bytes); ++i) {
    if (sample.bytes[i] != 0) return false;
  }
  return sample.reserved[0] == 0 && sample.reserved[1] == 0 &&
         sample.reserved[2] == 0;
}

TEST_F(PacketSamplerTest, SampleIsThePacketFromItsUdpHeaderOn) {
  Load();
  const uint64_t before = Now();
  const packet_sample sample = SampleOf("hello");
  EXPECT_GE(sample.at_ns, before);
  EXPECT_LE(sample.at_ns, Now());
  EXPECT_EQ(sample.length, kUdpHeader + 5);
  EXPECT_EQ(sample.protocol, 0x0800u);
  EXPECT_EQ(sample.captured, kUdpHeader + 5);
  EXPECT_EQ(sample.bytes[0] << 8 | sample.bytes[1], sender_.port());
  EXPECT_EQ(sample.bytes[2] << 8 | sample.bytes[3], receiver_.port());
  EXPECT_EQ(std::memcmp(sample.bytes + kUdpHeader, "hello", 5), 0);
  EXPECT_TRUE(RestIsZero(sample));
  EXPECT_EQ(Count().seen, 1u);
  EXPECT_EQ(Count().sampled, 1u);
  EXPECT_EQ(Count().dropped, 0u);
}

TEST_F(PacketSamplerTest, EmptyDatagramIsItsHeader) {
  Load();
  const packet_sample sample = SampleOf("");
  EXPECT_EQ(sample.length, kUdpHeader);
  EXPECT_EQ(sample.captured, kUdpHeader);
}

TEST_F(PacketSamplerTest, SnapLengthIsObeyedWithinItsBounds) {
  Load();
  const std::string packet(100, 'x');
  struct Case {
    uint32_t wanted, captured;
  };
  for (const Case& c :
       {Case{0, 64}, Case{1, 1}, Case{63, 63}, Case{64, 64}, Case{65, 64},
        Case{0x80000000, 64}, Case{0xffffffff, 64}}) {
    Configure(c.wanted, 0);
    const packet_sample sample = SampleOf(packet);
    EXPECT_EQ(sample.captured, c.captured) << c.wanted;
    EXPECT_EQ(sample.length, kUdpHeader + packet.size()) << c.wanted;
    EXPECT_TRUE(RestIsZero(sample)) << c.wanted;
  }
}

TEST_F(PacketSamplerTest, SamplesOneInSoMany) {
  Load();
  for (const uint32_t every : {0, 1}) {
    Configure(0, every);
    for (int i = 0; i < 10; ++i) Send("x");
    EXPECT_EQ(Samples().size(), 10u) << every;
  }
  // 1000 in 2: 500, and 10 standard deviations of 16.
  Configure(0, 2);
  for (int i = 0; i < 1000; ++i) {
    Send("x");
    ASSERT_TRUE(receiver_.Receive());
  }
  EXPECT_NEAR(static_cast<double>(Samples().size()), 500, 160);
  Configure(0, 0xffffffff);
  for (int i = 0; i < 1000; ++i) {
    Send("x");
    ASSERT_TRUE(receiver_.Receive());
  }
  EXPECT_LE(Samples().size(), 1u);
  EXPECT_EQ(Count().seen, 2020u);
}

TEST_F(PacketSamplerTest, FullRingLosesSamplesAndNoPackets) {
  Load();
  constexpr uint64_t kSent = kRoom + 300;
  for (uint64_t i = 0; i < kSent; ++i) {
    Send("x");
    ASSERT_TRUE(receiver_.Receive()) << i;
  }
  EXPECT_EQ(Count().seen, kSent);
  EXPECT_EQ(Count().sampled, kRoom);
  EXPECT_EQ(Count().dropped, 300u);
  EXPECT_EQ(Samples().size(), kRoom);
  // Read, it takes samples again.
  SampleOf("y");
}

TEST_F(PacketSamplerTest, ClosedGatePasses) {
  Load({.on_revoke = kPass});
  SampleOf("before");
  for (const uint64_t closed : {uint64_t{0}, kNonce + 1, kNonce << 32}) {
    program_->SetGate(closed);
    Send("revoked");
    EXPECT_EQ(receiver_.Receive(), "revoked");
    EXPECT_TRUE(Samples().empty());
  }
  EXPECT_EQ(Count().seen, 1u);
  program_->SetGate(kNonce);
  SampleOf("again");
}

TEST_F(PacketSamplerTest, ClosedGateDrops) {
  for (const uint32_t on_revoke : {kDrop, uint32_t{0}, uint32_t{3}}) {
    Load({.on_revoke = on_revoke});
    SampleOf("before");
    program_->SetGate(0);
    Send("revoked");
    EXPECT_EQ(receiver_.Receive(), std::nullopt);
    EXPECT_TRUE(Samples().empty());
  }
}

TEST_F(PacketSamplerTest, NonceOfZeroNeverOpens) {
  Load({.nonce = 0});
  program_->SetGate(0);
  Send("revoked");
  EXPECT_EQ(receiver_.Receive(), "revoked");
  EXPECT_TRUE(Samples().empty());
}

TEST_F(PacketSamplerTest, NeverWritesItsGate) {
  EXPECT_NE(LoadedProgram::Load("packet_sampler", {.read_only_gate = true}),
            nullptr);
}

// The holder of the config can rewrite it between any two of its reads.
TEST_F(PacketSamplerTest, ConfigRewrittenAllTheTime) {
  Load();
  auto* config =
      static_cast<volatile Config*>(program_->Map("config", sizeof(Config)));
  ASSERT_NE(config, nullptr);
  std::atomic<bool> done = false;
  std::thread rewriter([&] {
    for (uint32_t value = 1; !done; value = value * 1664525 + 1013904223) {
      config->snap_length = value >> (value % 32);
      config->one_in = value % 4;
    }
  });
  size_t samples = 0;
  for (int i = 0; i < 5000; ++i) {
    Send(std::string(static_cast<size_t>(i % 90), 'x'));
    ASSERT_TRUE(receiver_.Receive()) << i;
    for (const packet_sample& sample : Samples()) {
      ++samples;
      ASSERT_GE(sample.captured, 1u);
      ASSERT_LE(sample.captured, 64u);
      ASSERT_LE(sample.captured, sample.length);
      ASSERT_TRUE(RestIsZero(sample));
    }
  }
  done = true;
  rewriter.join();
  EXPECT_GT(samples, 0u);
  EXPECT_EQ(Count().seen, 5000u);
  munmap(const_cast<Config*>(config), sizeof(Config));
}

TEST_F(PacketSamplerTest, UnixDatagramsHaveNoHeaderAndEmptyOnesPass) {
  Load();
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends), 0);
  const UniqueFd from(ends[0]), to(ends[1]);
  const int program = program_->program();
  ASSERT_EQ(setsockopt(to.get(), SOL_SOCKET, SO_ATTACH_BPF, &program,
                       sizeof(program)),
            0);
  char buffer[8];
  for (const std::string& sent : {std::string("abc"), std::string()}) {
    ASSERT_EQ(send(from.get(), sent.data(), sent.size(), 0),
              static_cast<ssize_t>(sent.size()));
    EXPECT_EQ(recv(to.get(), buffer, sizeof(buffer), MSG_DONTWAIT),
              static_cast<ssize_t>(sent.size()));
    const std::vector<packet_sample> samples = Samples();
    ASSERT_EQ(samples.size(), 1u);
    EXPECT_EQ(samples[0].protocol, 0u);
    EXPECT_EQ(samples[0].length, sent.size());
    EXPECT_EQ(samples[0].captured, sent.size());
    EXPECT_EQ(std::memcmp(samples[0].bytes, sent.data(), sent.size()), 0);
  }
}

}  // namespace
}  // namespace bpfgrant::test
