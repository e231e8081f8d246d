// Parameters of the catalog's programs, chosen by a client without privilege.

#include <cstring>
#include <string>
#include <vector>

#include "bpfgrant/programs/flow_filter.h"
#include "bpfgrant/programs/packet_sampler.h"
#include "bpfgrant/programs/reuseport_steer.h"
#include "client/bpfgrant/attach.h"
#include "client/bpfgrant/mapped_array.h"
#include "client/bpfgrant/parameter.h"
#include "client/bpfgrant/ring_buffer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/refusal/refusal.h"
#include "tests/harness/as_nobody.h"
#include "tests/privileged/loopback.h"

namespace bpfgrant::test {
namespace {

class SamplerParametersTest : public NobodyTest {
 protected:
  SamplerParametersTest() : NobodyTest("packet_sampler") {}

  static Connection::AcquireOptions Sampler(
      std::vector<v1::ParameterValue> values) {
    return {.program = "packet_sampler",
            .interface = PACKET_SAMPLER_INTERFACE,
            .interface_hash = PACKET_SAMPLER_INTERFACE_HASH,
            .parameters = std::move(values)};
  }
  // What is captured of each of 64 packets by a sampler whose config asks for
  // all of all of them.
  std::vector<uint16_t> Captured(std::vector<v1::ParameterValue> values) {
    UdpSocket receiver, sender;
    const auto grant = AttachTo(connection(), Sampler(std::move(values)),
                                receiver.fd(), SocketHook::kFilter);
    EXPECT_TRUE(grant.ok()) << grant.status();
    if (!grant.ok()) return {};
    auto config = MappedArray::Map(**grant->Find("config"));
    auto samples = RingBuffer::Map(**grant->Find("samples"));
    EXPECT_TRUE(config.ok() && samples.ok());
    *config->At<packet_sampler_config>(0) = {.snap_length = 64, .one_in = 1};
    for (int i = 0; i < 64; ++i) {
      sender.SendTo(receiver.port(), std::string(100, 'x'));
    }
    std::vector<uint16_t> captured;
    EXPECT_TRUE(samples
                    ->Consume([&](absl::Span<const std::byte> bytes) {
                      packet_sample sample;
                      ASSERT_EQ(bytes.size(), sizeof(sample));
                      std::memcpy(&sample, bytes.data(), sizeof(sample));
                      captured.push_back(sample.captured);
                    })
                    .ok());
    return captured;
  }
};

TEST_F(SamplerParametersTest, BoundsHoldWhateverTheConfigSays) {
  BPFGRANT_AS_NOBODY();
  EXPECT_EQ(Captured({}), std::vector<uint16_t>(64, 64));
  EXPECT_EQ(
      Captured({IntegerParameter(PACKET_SAMPLER_PARAMETER_MOST_BYTES, 28)}),
      std::vector<uint16_t>(64, 28));
  // One in a million.
  EXPECT_LT(Captured({IntegerParameter(PACKET_SAMPLER_PARAMETER_LEAST_ONE_IN,
                                       1'000'000)})
                .size(),
            8u);
}

class NarrowedSamplerTest : public SamplerParametersTest {
 protected:
  std::string Policy() override {
    return R"(
      rule {
        name: "headers"
        effect: ALLOW
        everyone: true
        program: "packet_sampler"
        quota { grants: 8 }
        trusted: true
        parameter { name: "most_bytes" max: 28 }
      })";
  }
};

TEST_F(NarrowedSamplerTest, ItsCallersSeeHeadersOnly) {
  BPFGRANT_AS_NOBODY();
  const auto all = connection().Acquire(Sampler({}));
  EXPECT_EQ(ReasonOf(all.status()), v1::REASON_PARAMETER_NARROWED);
  EXPECT_EQ(Captured({IntegerParameter("most_bytes", 28)}),
            std::vector<uint16_t>(64, 28));
}

class FilterParametersTest : public NobodyTest {
 protected:
  FilterParametersTest() : NobodyTest("flow_filter") {}
};

TEST_F(FilterParametersTest, DropsFromTheFirstPacketOn) {
  BPFGRANT_AS_NOBODY();
  for (const bool drop : {true, false}) {
    UdpSocket receiver, sender;
    const auto grant = AttachTo(
        connection(),
        {.program = "flow_filter",
         .interface = FLOW_FILTER_INTERFACE,
         .interface_hash = FLOW_FILTER_INTERFACE_HASH,
         .parameters = {ChoiceParameter(FLOW_FILTER_PARAMETER_UNMATCHED,
                                        drop ? "drop" : "pass")}},
        receiver.fd(), SocketHook::kFilter);
    ASSERT_TRUE(grant.ok()) << grant.status();
    sender.SendTo(receiver.port(), "unmatched");
    EXPECT_EQ(receiver.Drain(), drop ? 0 : 1);
  }
}

class SteerParametersTest : public NobodyTest {
 protected:
  SteerParametersTest() : NobodyTest("reuseport_steer") {}
};

TEST_F(SteerParametersTest, SeedAndFirstSocketAreThere) {
  BPFGRANT_AS_NOBODY();
  UdpSocket chosen(0, /*reuse_port=*/true);
  UdpSocket other(chosen.port(), /*reuse_port=*/true);
  const auto grant = connection().Acquire(
      {.program = "reuseport_steer",
       .interface = REUSEPORT_STEER_INTERFACE,
       .interface_hash = REUSEPORT_STEER_INTERFACE_HASH,
       .parameters = {IntegerParameter(REUSEPORT_STEER_PARAMETER_SEED,
                                       0xffffffff)},
       .files = {{REUSEPORT_STEER_PARAMETER_FIRST_SOCKET, chosen.fd()}}});
  ASSERT_TRUE(grant.ok()) << grant.status();
  auto config = MappedArray::Map(**grant->Find("config"));
  ASSERT_TRUE(config.ok()) << config.status();
  auto* const wanted = config->At<reuseport_steer_config>(0);
  EXPECT_EQ(wanted->seed, 0xffffffff);
  wanted->length = 4;
  wanted->sockets = 1;
  ASSERT_TRUE(AttachBySetsockopt(other.fd(), grant->program_fd(),
                                 SocketHook::kReuseport)
                  .ok());
  UdpSocket sender;
  for (int i = 0; i < 16; ++i) sender.SendTo(chosen.port(), "connection");
  EXPECT_EQ(chosen.Drain(), 16);
  EXPECT_EQ(other.Drain(), 0);
  // Another grant finds nothing of it.
  const auto next = connection().Acquire(
      {.program = "reuseport_steer", .interface = REUSEPORT_STEER_INTERFACE});
  ASSERT_TRUE(next.ok()) << next.status();
  auto untouched = MappedArray::Map(**next->Find("config"));
  ASSERT_TRUE(untouched.ok());
  EXPECT_EQ(untouched->At<reuseport_steer_config>(0)->seed, 0u);
}

}  // namespace
}  // namespace bpfgrant::test
