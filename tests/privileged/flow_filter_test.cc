// flow_filter on real packets of the loopback interface, and on made-up ones
// from addresses that are not there.

#include "bpf-programs/flow_filter/flow_filter.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/skip.h"
#include "tests/privileged/flow_filter_fixture.h"
#include "tests/privileged/loaded_program.h"
#include "tests/privileged/loopback.h"

namespace bpfgrant::test {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST_F(FlowFilterTest, RealPacketsOfIpv4) {
  UdpSocket receiver, good("127.0.0.2"), bad("127.0.0.3");
  receiver.Attach(SO_ATTACH_BPF, program_->program());
  Add("127.0.0.3/32", FLOW_FILTER_BLOCK);
  bad.SendTo(receiver.port(), "bad");
  good.SendTo(receiver.port(), "good");
  EXPECT_EQ(receiver.Receive(), "good");
  EXPECT_EQ(receiver.Drain(), 0);
  EXPECT_EQ(Count().blocked, 1u);
  EXPECT_EQ(Count().unmatched, 1u);

  Remove("127.0.0.3/32");
  bad.SendTo(receiver.port(), "bad");
  EXPECT_EQ(receiver.Receive(), "bad");
}

TEST_F(FlowFilterTest, RealPacketsOfIpv6) {
  UdpSocket receiver("::1"), sender("::1");
  receiver.Attach(SO_ATTACH_BPF, program_->program());
  Add("::/96", FLOW_FILTER_BLOCK);
  sender.SendTo(receiver.port(), "bad");
  EXPECT_EQ(receiver.Receive(), std::nullopt);
  Add("::1/128", FLOW_FILTER_ALLOW);
  sender.SendTo(receiver.port(), "good");
  EXPECT_EQ(receiver.Receive(), "good");
}

TEST_F(FlowFilterTest, WhatIsNoIpPasses) {
  Configure(/*drop_unmatched=*/1, 0);
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends), 0);
  const UniqueFd one(ends[0]), other(ends[1]);
  const int program = program_->program();
  ASSERT_EQ(setsockopt(one.get(), SOL_SOCKET, SO_ATTACH_BPF, &program,
                       sizeof(program)),
            0);
  ASSERT_EQ(send(other.get(), "x", 1, 0), 1);
  char byte = 0;
  EXPECT_EQ(recv(one.get(), &byte, 1, MSG_DONTWAIT), 1);
  EXPECT_EQ(Count().other, 1u);
}

// A packet socket sees frames whose header is cut off: no address, no rule.
TEST_F(FlowFilterTest, AnAddressThatCannotBeSeenIsOneWithoutARule) {
  const UniqueFd receiver(
      socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const UniqueFd sender(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
  const int program = program_->program();
  ASSERT_EQ(setsockopt(receiver.get(), SOL_SOCKET, SO_ATTACH_BPF, &program,
                       sizeof(program)),
            0);
  sockaddr_ll loopback{};
  loopback.sll_family = AF_PACKET;
  loopback.sll_protocol = htons(ETH_P_IP);
  loopback.sll_ifindex = static_cast<int>(if_nametoindex("lo"));
  ASSERT_EQ(bind(receiver.get(), reinterpret_cast<sockaddr*>(&loopback),
                 sizeof(loopback)),
            0);
  std::vector<char> frame = FrameFrom("192.0.2.1");
  frame.resize(ETH_HLEN + 10);
  const auto arrives = [&] {
    EXPECT_EQ(sendto(sender.get(), frame.data(), frame.size(), 0,
                     reinterpret_cast<sockaddr*>(&loopback), sizeof(loopback)),
              static_cast<ssize_t>(frame.size()));
    char byte = 0;
    bool any = false;
    while (recv(receiver.get(), &byte, 1, 0) >= 0) any = true;
    return any;
  };
  EXPECT_TRUE(arrives());
  Configure(/*drop_unmatched=*/1, 0);
  // Others use this device, too.
  for (char byte = 0; recv(receiver.get(), &byte, 1, 0) >= 0;) {
  }
  EXPECT_FALSE(arrives());
  EXPECT_GE(Count().unmatched, 2u);
  EXPECT_EQ(Count().other, 0u);
}

TEST_F(FlowFilterTest, TheLongestPrefixWins) {
  Add("10.0.0.0/8", FLOW_FILTER_BLOCK);
  Add("10.1.0.0/16", FLOW_FILTER_ALLOW);
  Add("10.1.2.3/32", FLOW_FILTER_BLOCK);
  EXPECT_FALSE(Passes("10.2.0.1"));
  EXPECT_TRUE(Passes("10.1.0.1"));
  EXPECT_FALSE(Passes("10.1.2.3"));
  EXPECT_TRUE(Passes("11.0.0.1"));
  Add("2001:db8::/32", FLOW_FILTER_BLOCK);
  Add("2001:db8:1::/48", FLOW_FILTER_ALLOW);
  EXPECT_FALSE(Passes("2001:db8:2::1"));
  EXPECT_TRUE(Passes("2001:db8:1::1"));
  EXPECT_TRUE(Passes("2001:db9::1"));
}

TEST_F(FlowFilterTest, ARuleOfOneFamilyIsNoneOfTheOther) {
  Add("0.0.0.0/0", FLOW_FILTER_BLOCK);
  EXPECT_FALSE(Passes("192.0.2.7"));
  EXPECT_TRUE(Passes("::1"));
  Add("::/0", FLOW_FILTER_BLOCK);
  EXPECT_FALSE(Passes("::1"));
}

TEST_F(FlowFilterTest, WhatNoRuleMatchesIsTheConfigs) {
  EXPECT_TRUE(Passes("192.0.2.7"));
  Configure(/*drop_unmatched=*/1, 0);
  EXPECT_FALSE(Passes("192.0.2.7"));
  Add("192.0.2.0/24", FLOW_FILTER_ALLOW);
  EXPECT_TRUE(Passes("192.0.2.7"));
}

TEST_F(FlowFilterTest, ALaterRuleOfAPrefixReplacesIt) {
  Configure(0, kEverything);
  Add("10.0.0.0/8", FLOW_FILTER_BLOCK);
  EXPECT_FALSE(Passes("10.0.0.1"));
  Add("10.0.0.0/8", FLOW_FILTER_ALLOW);
  EXPECT_TRUE(Passes("10.0.0.1"));
  // It was one rule.
  Remove("10.0.0.0/8");
  Remove("10.0.0.0/8");
  Obey();
  const auto events = Events();
  ASSERT_THAT(events, SizeIs(4));
  EXPECT_EQ(events[2].kind, FLOW_FILTER_OBEYED);
  EXPECT_EQ(events[3].kind, FLOW_FILTER_REFUSED);
  EXPECT_EQ(events[3].why, FLOW_FILTER_NO_RULE);
}

TEST_F(FlowFilterTest, RemoveTakesJustThatPrefix) {
  Add("10.0.0.0/8", FLOW_FILTER_BLOCK);
  Remove("10.0.0.0/16");
  Remove("10.0.0.0/7");
  EXPECT_FALSE(Passes("10.0.0.1"));
  EXPECT_EQ(Count().refused, 2u);
}

TEST_F(FlowFilterTest, ClearTakesAll) {
  Add("10.0.0.0/8", FLOW_FILTER_BLOCK);
  Add("::/0", FLOW_FILTER_BLOCK);
  flow_filter_command clear{};
  clear.verb = FLOW_FILTER_CLEAR;
  Submit(clear);
  EXPECT_TRUE(Passes("10.0.0.1"));
  EXPECT_TRUE(Passes("::1"));
  EXPECT_EQ(Count().obeyed, 3u);
}

TEST_F(FlowFilterTest, ARuleExpires) {
  Add("10.0.0.0/8", FLOW_FILTER_ALLOW);
  Add("10.0.0.0/16", FLOW_FILTER_BLOCK, milliseconds(300));
  EXPECT_FALSE(Passes("10.0.0.1"));
  std::this_thread::sleep_for(milliseconds(310));
  Configure(/*drop_unmatched=*/1, 0);
  // What is behind it counts again.
  EXPECT_TRUE(Passes("10.0.0.1"));
  EXPECT_FALSE(Passes("11.0.0.1"));
}

TEST_F(FlowFilterTest, BehindExpiredRulesOfEveryLengthIsOneThatHasNot) {
  Add("::/0", FLOW_FILTER_BLOCK);
  for (int length = 1; length <= 128; ++length) {
    Add(absl::StrCat("::1/", length), FLOW_FILTER_ALLOW, milliseconds(1));
  }
  Obey();
  std::this_thread::sleep_for(milliseconds(5));
  EXPECT_FALSE(Passes("::1"));
}

TEST_F(FlowFilterTest, AnExpiredRuleMakesRoom) {
  Configure(0, kEverything);
  for (int i = 0; i < FLOW_FILTER_RULES; ++i) {
    // One that goes, in the middle.
    Add(absl::StrCat("10.", i / 256, ".", i % 256, ".0/24"), FLOW_FILTER_BLOCK,
        milliseconds(i == 1000 ? 1 : 0));
    if (i % 1000 == 999) Obey();
  }
  Obey();
  EXPECT_EQ(Count().obeyed, static_cast<uint64_t>(FLOW_FILTER_RULES));
  Events();
  std::this_thread::sleep_for(milliseconds(5));

  Add("11.0.0.0/24", FLOW_FILTER_BLOCK);
  EXPECT_FALSE(Passes("11.0.0.1"));
  auto events = Events();
  ASSERT_THAT(events, SizeIs(2));
  EXPECT_EQ(events[0].kind, FLOW_FILTER_EXPIRED);
  EXPECT_EQ(events[0].tag, 1001u);
  EXPECT_EQ(events[0].prefix_length, 24);
  EXPECT_EQ(events[0].address[2], 1000 % 256);
  EXPECT_EQ(events[1].kind, FLOW_FILTER_OBEYED);

  // Now it is full, but for what replaces.
  Add("12.0.0.0/24", FLOW_FILTER_BLOCK);
  Add("11.0.0.0/24", FLOW_FILTER_ALLOW);
  EXPECT_TRUE(Passes("12.0.0.1"));
  EXPECT_TRUE(Passes("11.0.0.1"));
  events = Events();
  ASSERT_THAT(events, SizeIs(2));
  EXPECT_EQ(events[0].kind, FLOW_FILTER_REFUSED);
  EXPECT_EQ(events[0].why, FLOW_FILTER_FULL);
  // A removed one makes room as well.
  Remove("10.0.0.0/24");
  Add("12.0.0.0/24", FLOW_FILTER_BLOCK);
  EXPECT_FALSE(Passes("12.0.0.1"));
}

TEST_F(FlowFilterTest, RefusesWhatIsNoCommand) {
  Configure(0, kEverything);
  const auto submit = [this](auto change) {
    flow_filter_command command =
        Command(FLOW_FILTER_ADD, "10.0.0.0/8", FLOW_FILTER_BLOCK);
    change(command);
    Submit(command);
  };
  submit([](auto& c) { c.verb = 0; });
  submit([](auto& c) { c.verb = 4; });
  submit([](auto& c) { c.list = 0; });
  submit([](auto& c) { c.list = 3; });
  submit([](auto& c) { c.family = 0; });
  submit([](auto& c) { c.prefix_length = 33; });
  submit([](auto& c) {
    c.family = 6;
    c.prefix_length = 129;
  });
  auto sample = commands_->Reserve(sizeof(flow_filter_command) - 1);
  ASSERT_TRUE(sample.ok());
  commands_->Submit(*sample);
  sample = commands_->Reserve(0);
  ASSERT_TRUE(sample.ok());
  commands_->Submit(*sample);
  Obey();
  const flow_filter_why kWhy[] = {
      FLOW_FILTER_BAD_VERB,   FLOW_FILTER_BAD_VERB,   FLOW_FILTER_BAD_LIST,
      FLOW_FILTER_BAD_LIST,   FLOW_FILTER_BAD_PREFIX, FLOW_FILTER_BAD_PREFIX,
      FLOW_FILTER_BAD_PREFIX, FLOW_FILTER_TOO_SHORT,  FLOW_FILTER_TOO_SHORT};
  const auto events = Events();
  ASSERT_THAT(events, SizeIs(std::size(kWhy)));
  for (size_t i = 0; i < events.size(); ++i) {
    EXPECT_EQ(events[i].kind, FLOW_FILTER_REFUSED) << i;
    EXPECT_EQ(events[i].why, kWhy[i]) << i;
    // Of what was too short nothing is known.
    EXPECT_EQ(events[i].tag, i < 7 ? i + 1 : 0);
  }
  EXPECT_EQ(Count().refused, std::size(kWhy));
  EXPECT_EQ(Count().obeyed, 0u);
  EXPECT_TRUE(Passes("10.0.0.1"));
}

TEST_F(FlowFilterTest, TellsOfBlockedPackets) {
  Configure(/*drop_unmatched=*/1, FLOW_FILTER_REPORT_BLOCKED);
  Add("10.0.0.0/8", FLOW_FILTER_BLOCK);
  EXPECT_FALSE(Passes("10.1.2.3"));
  EXPECT_FALSE(Passes("2001:db8::1"));
  const auto events = Events();
  ASSERT_THAT(events, SizeIs(2));
  EXPECT_EQ(events[0].kind, FLOW_FILTER_BLOCKED);
  EXPECT_EQ(events[0].tag, 1u);
  EXPECT_EQ(events[0].family, 4);
  EXPECT_EQ(events[0].prefix_length, 32);
  EXPECT_EQ(events[0].address[3], 3);
  EXPECT_EQ(events[1].tag, 0u);
  EXPECT_EQ(events[1].family, 6);
  EXPECT_EQ(events[1].prefix_length, 128);
  EXPECT_EQ(events[1].address[15], 1);
}

TEST_F(FlowFilterTest, EventsThatFindNoRoomAreCounted) {
  Configure(/*drop_unmatched=*/1, FLOW_FILTER_REPORT_BLOCKED);
  const uint64_t room = kRingBytes / (sizeof(flow_filter_event) + 8);
  const std::vector<char> frame = FrameFrom("192.0.2.1");
  for (uint64_t i = 0; i < room + 10; ++i) ASSERT_EQ(Run(frame), 0u);
  const uint64_t lost = Count().lost;
  EXPECT_GE(lost, 10u);
  EXPECT_LE(lost, 12u);
  EXPECT_EQ(Events().size() + lost, room + 10);
}

// A packet pays for a batch, however many commands wait.
TEST_F(FlowFilterTest, APacketObeysABatch) {
  for (int i = 0; i < FLOW_FILTER_BATCH + 10; ++i) {
    Add(absl::StrCat("10.0.", i, ".0/24"), FLOW_FILTER_BLOCK);
  }
  Passes("192.0.2.1");
  EXPECT_EQ(Count().obeyed, static_cast<uint64_t>(FLOW_FILTER_BATCH));
  Passes("192.0.2.1");
  EXPECT_EQ(Count().obeyed, FLOW_FILTER_BATCH + 10u);
}

// What the kernel says of positions that cannot be is there to be seen, and the
// rules in force stay.
TEST_F(FlowFilterTest, SaysWhatIsWrongWithItsCommands) {
  Add("10.0.0.0/8", FLOW_FILTER_BLOCK);
  EXPECT_FALSE(Passes("10.0.0.1"));
  auto* const producer = static_cast<unsigned long*>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED,
           program_->map("commands"), 4096));
  ASSERT_NE(producer, MAP_FAILED);
  *producer += 4;
  EXPECT_FALSE(Passes("10.0.0.1"));
  EXPECT_EQ(Count().broken, 1u);
  EXPECT_EQ(Count().error, -EINVAL);
  *producer -= 4;
  Add("11.0.0.0/8", FLOW_FILTER_BLOCK);
  EXPECT_FALSE(Passes("11.0.0.1"));
  EXPECT_EQ(Count().broken, 1u);
  munmap(producer, 4096);
}

TEST_F(FlowFilterTest, OnceRevokedItDropsAndObeysNobody) {
  Load({.on_revoke = kDrop});
  EXPECT_TRUE(Passes("192.0.2.1"));
  program_->SetGate(0);
  Add("192.0.2.0/24", FLOW_FILTER_ALLOW);
  EXPECT_FALSE(Passes("192.0.2.1"));
  EXPECT_EQ(Count().obeyed, 0u);
  EXPECT_GT(commands_->pending(), 0u);
}

TEST_F(FlowFilterTest, PacketsOnAllProcessorsWhileRulesChange) {
  std::atomic<bool> done{false};
  std::vector<std::thread> senders;
  for (int i = 0; i < 3; ++i) {
    senders.emplace_back([&] {
      const std::vector<char> frame = FrameFrom("10.0.0.1");
      while (!done) Run(frame);
    });
  }
  for (int i = 0; i < 3000; ++i) {
    auto sample = commands_->ReserveBlocking(sizeof(flow_filter_command));
    ASSERT_TRUE(sample.ok()) << sample.status();
    const auto command =
        Command(i % 3 == 2 ? FLOW_FILTER_REMOVE : FLOW_FILTER_ADD, "10.0.0.0/8",
                1 + i % 2);
    std::memcpy(sample->data(), &command, sizeof(command));
    commands_->Submit(*sample);
  }
  for (int i = 0; i < 10'000 && commands_->pending() > 0; ++i) {
    std::this_thread::sleep_for(milliseconds(1));
  }
  done = true;
  for (std::thread& sender : senders) sender.join();
  // Each exactly once, in their order: no removal met an empty place.
  EXPECT_EQ(Count().obeyed, 3000u);
  EXPECT_EQ(Count().refused, 0u);
}

}  // namespace
}  // namespace bpfgrant::test
