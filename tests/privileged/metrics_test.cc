// What the daemon measures of programs at work, against what they did.

#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <functional>
#include <string>

#include "absl/strings/str_cat.h"
#include "bpfgrant/programs/packet_sampler.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/process_tree.h"
#include "tests/harness/unprivileged.h"
#include "tests/privileged/client_fixture.h"

namespace bpfgrant::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// The kernel counts runs while it is open.
UniqueFd CountRuns() {
  bpf_attr attributes{};
  attributes.enable_stats.type = BPF_STATS_RUN_TIME;
  UniqueFd fd(static_cast<int>(
      syscall(SYS_bpf, BPF_ENABLE_STATS, &attributes, sizeof(attributes))));
  EXPECT_TRUE(fd.valid());
  return fd;
}

class MetricsTest : public ClientTest {
 protected:
  void StartWith(const std::vector<std::string>& programs) {
    DaemonOptions options;
    options.programs = programs;
    Start(options);
  }
  v1::ActivityReply Activity() {
    auto reply = administrator().Activity();
    EXPECT_TRUE(reply.ok()) << reply.status();
    return reply.ok() ? *std::move(reply) : v1::ActivityReply();
  }
  // One that is as expected, which may take another look.
  v1::ActivityReply WaitFor(
      const std::function<bool(const v1::ActivityReply&)>& expected) {
    v1::ActivityReply reply;
    EXPECT_TRUE(WaitUntil(
        [&] {
          reply = Activity();
          return expected(reply);
        },
        kPatience))
        << reply.DebugString();
    return reply;
  }
  std::string Metrics() {
    auto text = administrator().Metrics();
    EXPECT_TRUE(text.ok()) << text.status();
    return text.ok() ? *text : "";
  }
};

TEST_F(MetricsTest, AFiltersRunsAndItsBufferAreThoseOfItsPackets) {
  ASSERT_NO_FATAL_FAILURE(StartWith({"packet_sampler"}));
  const UniqueFd counting = CountRuns();
  Nobody client;
  Connect(client);
  const Acquired acquired = client.Acquire("packet_sampler program");
  const Acquired other = client.Acquire("packet_sampler program");
  client.Do("udp");
  client.Do("attach 0 0");
  client.Do("traffic 0 50");
  const v1::ActivityReply reply = WaitFor([](const v1::ActivityReply& now) {
    return now.grant_size() == 2 && now.grant(0).count().runs() == 50;
  });
  EXPECT_TRUE(reply.counting());
  EXPECT_EQ(reply.unavailable(), "");
  ASSERT_EQ(reply.program_size(), 1);
  EXPECT_EQ(reply.program(0).count().runs(), 50u);
  EXPECT_GT(reply.program(0).count().run_ns(), 0u);
  EXPECT_GE(reply.program(0).instances(), 2u);
  EXPECT_FALSE(reply.program(0).whole_machine());
  ASSERT_EQ(reply.grant_size(), 2);
  const v1::GrantActivity& grant = reply.grant(0);
  EXPECT_EQ(grant.grant(), acquired.grant);
  EXPECT_EQ(grant.uid(), kNobody);
  EXPECT_EQ(grant.pid(), static_cast<uint32_t>(client.pid()));
  ASSERT_EQ(grant.ring_buffer_size(), 1);
  // Nobody has read it: each sample with its header, in steps of eight.
  const uint64_t sample =
      (BPF_RINGBUF_HDR_SZ + sizeof(packet_sample) + 7) / 8 * 8;
  EXPECT_EQ(grant.ring_buffer(0).used_bytes(), 50 * sample);
  EXPECT_EQ(grant.ring_buffer(0).size_bytes(), 256u * 1024);
  EXPECT_EQ(grant.ring_buffer(0).map(), "samples");
  EXPECT_EQ(reply.grant(1).grant(), other.grant);
  EXPECT_EQ(reply.grant(1).count().runs(), 0u);
  EXPECT_EQ(reply.grant(1).ring_buffer(0).used_bytes(), 0u);
  EXPECT_THAT(
      Metrics(),
      AllOf(HasSubstr("bpfgrant_program_runs_total{program=\"packet_sampler\"} "
                      "50\n"),
            HasSubstr("bpfgrant_program_statistics_enabled 1\n"),
            HasSubstr(absl::StrCat(
                "bpfgrant_ring_buffer_used_bytes{program=\"packet_sampler\","
                "map=\"samples\"} ",
                50 * sample, "\n"))));
}

TEST_F(MetricsTest, WhatAnEndedGrantDidStaysInTheTotal) {
  ASSERT_NO_FATAL_FAILURE(StartWith({"packet_sampler"}));
  const UniqueFd counting = CountRuns();
  {
    Nobody client;
    Connect(client);
    client.Acquire("packet_sampler program");
    client.Do("udp");
    client.Do("attach 0 0");
    client.Do("traffic 0 20");
    WaitFor([](const v1::ActivityReply& now) {
      return now.grant_size() == 1 && now.grant(0).count().runs() == 20;
    });
  }
  WaitUntilIdle();
  const v1::ActivityReply reply =
      WaitFor([](const v1::ActivityReply& now) { return now.grant().empty(); });
  ASSERT_EQ(reply.program_size(), 1);
  EXPECT_EQ(reply.program(0).count().runs(), 20u);
}

TEST_F(MetricsTest, ATracingProgramsRunsAreTheMachines) {
  ASSERT_NO_FATAL_FAILURE(StartWith({"io_latency"}));
  const UniqueFd counting = CountRuns();
  Nobody client, stranger;
  Connect(client);
  client.Acquire("io_latency any");
  client.Do("nops 100");
  stranger.Do("nops 100");
  // Each request begins and completes.
  const v1::ActivityReply reply = WaitFor([](const v1::ActivityReply& now) {
    return now.program_size() == 1 && now.program(0).count().runs() >= 400;
  });
  EXPECT_TRUE(reply.program(0).whole_machine());
  EXPECT_EQ(reply.program(0).instances(), 1u);
  ASSERT_EQ(reply.grant_size(), 1);
  EXPECT_FALSE(reply.grant(0).has_count());
  EXPECT_EQ(reply.grant(0).ring_buffer_size(), 1);
}

TEST_F(MetricsTest, AcquiresAreTimedWarmAndCold) {
  DaemonOptions options;
  options.config = kNothingAhead;
  options.programs = {"packet_sampler"};
  ASSERT_NO_FATAL_FAILURE(Start(options));
  Nobody client;
  Connect(client);
  for (int i = 0; i < 3; ++i) client.Acquire("packet_sampler program");
  const std::string cold = Metrics();
  EXPECT_THAT(cold, HasSubstr("bpfgrant_acquire_seconds_count{path=\"cold\"} "
                              "3\n"));
  EXPECT_THAT(cold, HasSubstr("bpfgrant_acquire_seconds_count{path=\"warm\"} "
                              "0\n"));
  EXPECT_THAT(cold, HasSubstr("bpfgrant_load_seconds_count 3\n"));
  EXPECT_THAT(cold, HasSubstr("bpfgrant_load_failures_total 0\n"));
  EXPECT_THAT(cold, HasSubstr("bpfgrant_reload_seconds_count 0\n"));
  daemon().WritePolicy("rubbish");
  EXPECT_FALSE(administrator().Reload().ok());
  const std::string reloaded = Metrics();
  EXPECT_THAT(reloaded, HasSubstr("bpfgrant_reload_seconds_count 1\n"));
  EXPECT_THAT(reloaded, HasSubstr("bpfgrant_reload_failures_total 1\n"));
  EXPECT_THAT(reloaded,
              HasSubstr("bpfgrant_refusals_total{reason=\"reload-rejected\"} "
                        "1\n"));
}

TEST_F(MetricsTest, FromAFullPoolItIsWarm) {
  ASSERT_NO_FATAL_FAILURE(StartWith({"packet_sampler"}));
  WaitUntilIdle();
  Nobody client;
  Connect(client);
  client.Acquire("packet_sampler program");
  EXPECT_THAT(Metrics(),
              HasSubstr("bpfgrant_acquire_seconds_count{path=\"warm\"} 1\n"));
}

}  // namespace
}  // namespace bpfgrant::test
