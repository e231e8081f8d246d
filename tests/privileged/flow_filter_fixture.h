// flow_filter by itself, with its ring buffers, and packets for it.

#ifndef TESTS_PRIVILEGED_FLOW_FILTER_FIXTURE_H_
#define TESTS_PRIVILEGED_FLOW_FILTER_FIXTURE_H_

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <net/if.h>
#include <sys/socket.h>

#include <array>
#include <chrono>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bpf-programs/flow_filter/flow_filter.h"
#include "client/bpfgrant/ring_buffer.h"
#include "client/bpfgrant/user_ring_buffer.h"
#include "gtest/gtest.h"
#include "tests/harness/skip.h"
#include "tests/privileged/loaded_program.h"
#include "tests/privileged/loopback.h"

namespace bpfgrant::test {

using std::chrono::milliseconds;

inline constexpr size_t kRingBytes = 256 * 1024;
inline constexpr uint32_t kEverything = FLOW_FILTER_REPORT_OBEYED |
                                        FLOW_FILTER_REPORT_REFUSED |
                                        FLOW_FILTER_REPORT_EXPIRED;

// Fills in family and address; false if `text` is no address.
inline bool SetAddress(const std::string& text, flow_filter_command& command) {
  command.family = text.find(':') == std::string::npos ? 4 : 6;
  return inet_pton(command.family == 4 ? AF_INET : AF_INET6, text.c_str(),
                   command.address) == 1;
}

// A frame of this network header, with some payload.
template <typename Header>
std::vector<char> Frame(uint16_t ethertype, const Header& header) {
  std::vector<char> frame(sizeof(ethhdr) + sizeof(header) + 64);
  ethhdr link{};
  link.h_proto = htons(ethertype);
  std::memcpy(frame.data(), &link, sizeof(link));
  std::memcpy(frame.data() + sizeof(link), &header, sizeof(header));
  return frame;
}

inline std::vector<char> FrameFrom(const std::string& source) {
  flow_filter_command parsed{};
  EXPECT_TRUE(SetAddress(source, parsed)) << source;
  if (parsed.family == 4) {
    iphdr header{};
    header.version = 4;
    header.ihl = 5;
    std::memcpy(&header.saddr, parsed.address, 4);
    return Frame(ETH_P_IP, header);
  }
  ipv6hdr header{};
  header.version = 6;
  std::memcpy(&header.saddr, parsed.address, 16);
  return Frame(ETH_P_IPV6, header);
}

class FlowFilterTest : public PrivilegedTest {
 protected:
  void SetUp() override {
    PrivilegedTest::SetUp();
    if (IsSkipped()) return;
    Load({});
  }

  void Load(const LoadOptions& options) {
    events_.reset();
    commands_.reset();
    program_ = LoadedProgram::Load("flow_filter", options);
    ASSERT_NE(program_, nullptr);
    auto commands = UserRingBuffer::Map(program_->map("commands"), kRingBytes);
    ASSERT_TRUE(commands.ok()) << commands.status();
    commands_.emplace(*std::move(commands));
    auto events = RingBuffer::Map(program_->map("events"), kRingBytes);
    ASSERT_TRUE(events.ok()) << events.status();
    events_.emplace(*std::move(events));
  }

  void Submit(const flow_filter_command& command) {
    auto sample = commands_->Reserve(sizeof(command));
    ASSERT_TRUE(sample.ok()) << sample.status();
    std::memcpy(sample->data(), &command, sizeof(command));
    commands_->Submit(*sample);
  }
  // "10.0.0.0/8"; each command's tag is one more than the last one's.
  flow_filter_command Command(flow_filter_verb verb, const std::string& prefix,
                              uint8_t list = 0, milliseconds lifetime = {}) {
    flow_filter_command command{};
    command.verb = verb;
    command.list = list;
    command.tag = ++tag_;
    command.lifetime_ns = std::chrono::nanoseconds(lifetime).count();
    const size_t slash = prefix.find('/');
    EXPECT_TRUE(SetAddress(prefix.substr(0, slash), command)) << prefix;
    command.prefix_length = std::stoi(prefix.substr(slash + 1));
    return command;
  }
  void Add(const std::string& prefix, flow_filter_list list,
           milliseconds lifetime = {}) {
    Submit(Command(FLOW_FILTER_ADD, prefix, list, lifetime));
  }
  void Remove(const std::string& prefix) {
    Submit(Command(FLOW_FILTER_REMOVE, prefix));
  }

  // Whether the program lets a packet from there pass.
  bool Passes(const std::string& source) { return Run(FrameFrom(source)) != 0; }
  uint32_t Run(const std::vector<char>& frame) { return program_->Run(frame); }
  // Until all commands are obeyed.
  void Obey() {
    for (int i = 0; i < 1000 && commands_->pending() > 0; ++i) {
      Run(FrameFrom("192.0.2.1"));
    }
    EXPECT_EQ(commands_->pending(), 0u);
  }

  std::vector<flow_filter_event> Events() {
    std::vector<flow_filter_event> events;
    const auto count = events_->Consume([&](absl::Span<const std::byte> bytes) {
      ASSERT_EQ(bytes.size(), sizeof(flow_filter_event));
      std::memcpy(&events.emplace_back(), bytes.data(), bytes.size());
    });
    EXPECT_TRUE(count.ok()) << count.status();
    return events;
  }
  void Configure(uint32_t drop_unmatched, uint32_t report) {
    program_->Write("config", 0, flow_filter_config{drop_unmatched, report});
  }
  flow_filter_counters Count() {
    return program_->Read<flow_filter_counters>("counters");
  }

  std::unique_ptr<LoadedProgram> program_;
  std::optional<UserRingBuffer> commands_;
  std::optional<RingBuffer> events_;
  uint32_t tag_ = 0;
};

}  // namespace bpfgrant::test

#endif  // TESTS_PRIVILEGED_FLOW_FILTER_FIXTURE_H_
