// What the fds of a grant allow, and what they do not: each right that a
// manifest withholds is tried by an unprivileged client.

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/privileged/client_fixture.h"

namespace bpfgrant::test {
namespace {

using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::Key;

class RightsTest : public ClientTest {
 protected:
  // A client that holds `program`, with its fd.
  void Hold(Nobody& client, const std::string& program) {
    Connect(client);
    acquired_ = client.Acquire(program + " program");
  }

  Acquired acquired_;
};

TEST_F(RightsTest, AHandleToReadIsForReading) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  Hold(client, "packet_sampler");
  EXPECT_EQ(client.Ask("map 0 counters lookup"), "ok");
  EXPECT_EQ(client.Ask("map 0 counters next"), "error ENOENT");
  EXPECT_EQ(client.Ask("map 0 counters update"), "error EPERM");
  EXPECT_EQ(client.Ask("map 0 counters delete"), "error EPERM");
  EXPECT_EQ(client.Ask("map 0 counters freeze"), "error EPERM");
  EXPECT_NE(client.Ask("map 0 counters mmap"), "ok");
  EXPECT_NE(client.Ask("map 0 counters mmap-read"), "ok");
}

TEST_F(RightsTest, AHandleToReadCanBeWrittenWithoutNarrowing) {
  ASSERT_NO_FATAL_FAILURE(StartWithout({"narrowed_handles"}));
  Nobody client;
  Hold(client, "packet_sampler");
  EXPECT_EQ(client.Ask("map 0 counters update"), "ok");
  // Old kernels (6.1) want CAP_BPF for it, whatever the fd.
  EXPECT_THAT(client.Ask("map 0 counters freeze"), AnyOf("ok", "error EPERM"));
}

TEST_F(RightsTest, AHandleToWriteIsForWriting) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  Hold(client, "reuseport_steer");
  client.Do("udp group");
  EXPECT_EQ(client.Ask("map 0 sockets update 0"), "ok");
  EXPECT_EQ(client.Ask("map 0 sockets lookup"), "error EPERM");
  EXPECT_EQ(client.Ask("map 0 sockets next"), "error EPERM");
  EXPECT_EQ(client.Ask("map 0 counters update"), "error EPERM");
  EXPECT_EQ(client.Ask("map 0 sockets delete"), "ok");
}

TEST_F(RightsTest, AHandleToWriteCanBeReadWithoutNarrowing) {
  ASSERT_NO_FATAL_FAILURE(StartWithout({"narrowed_handles"}));
  Nobody client;
  Hold(client, "reuseport_steer");
  client.Do("udp group");
  EXPECT_EQ(client.Ask("map 0 sockets update 0"), "ok");
  EXPECT_EQ(client.Ask("map 0 sockets lookup"), "ok");
}

// An array that could be mapped, approved for reading.
class ReadOnlyConfigTest : public RightsTest {
 protected:
  void HoldReader(Nobody& client) {
    ASSERT_NO_FATAL_FAILURE(
        AddSampler("reader", "handle: \"config\"\n  rights: RIGHTS_READ_WRITE",
                   "handle: \"config\"\n  rights: RIGHTS_READ"));
    Hold(client, "reader");
    EXPECT_EQ(client.Ask("map 0 config lookup"), "ok");
  }
};

TEST_F(ReadOnlyConfigTest, CannotBeMapped) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  ASSERT_NO_FATAL_FAILURE(HoldReader(client));
  EXPECT_EQ(client.Ask("map 0 config mmap"), "error EACCES");
  // The kernel maps no narrowed fd, not even to be read.
  EXPECT_EQ(client.Ask("map 0 config mmap-read"), "error EINVAL");
}

TEST_F(ReadOnlyConfigTest, CanBeMappedWithoutNarrowing) {
  ASSERT_NO_FATAL_FAILURE(StartWithout({"narrowed_handles"}));
  Nobody client;
  ASSERT_NO_FATAL_FAILURE(HoldReader(client));
  EXPECT_EQ(client.Ask("map 0 config mmap"), "ok");
}

TEST_F(RightsTest, AHandleToReadAndWriteIsForBoth) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  Hold(client, "packet_sampler");
  EXPECT_EQ(client.Ask("map 0 config update"), "ok");
  EXPECT_EQ(client.Ask("map 0 config lookup"), "ok");
  EXPECT_EQ(client.Ask("map 0 config mmap"), "ok");
  EXPECT_EQ(client.Ask("one-in 0 7"), "ok");
}

// Most kernels let whoever may write a map freeze it. An instance has one
// owner, who harms nobody else.
TEST_F(RightsTest, WhatAClientFreezesIsItsOwn) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client, another;
  Hold(client, "packet_sampler");
  const bool frozen = client.Ask("map 0 config freeze") == "ok";
  EXPECT_EQ(client.Ask("map 0 config update"), frozen ? "error EPERM" : "ok");
  for (int i = 0; i < 8; ++i) {
    Hold(another, "packet_sampler");
    EXPECT_EQ(another.Ask("map " + acquired_.index + " config update"), "ok");
    another.Do("disconnect");
  }
}

TEST_F(RightsTest, NoWayBackToRightsByAnId) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  Hold(client, "packet_sampler");
  for (const auto& [name, id] : acquired_.ids) {
    ASSERT_NE(id, 0u) << name;
    const char* kind = name == "program" ? "program " : "map ";
    EXPECT_EQ(client.Ask("fd-by-id " + (kind + std::to_string(id))),
              "error EPERM")
        << name;
  }
  EXPECT_EQ(client.Ask("create-map"), "error EPERM");
}

TEST_F(RightsTest, NothingComesThatWasNotAskedFor) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  Connect(client);
  const uint64_t before = client.Number("fds");
  const Acquired one =
      client.Acquire("packet_sampler program handles=counters");
  EXPECT_THAT(one.ids, ElementsAre(Key("counters"), Key("program")));
  EXPECT_EQ(client.Number("fds"), before + 2);
  const Acquired all = client.Acquire("packet_sampler program");
  EXPECT_THAT(all.ids, ElementsAre(Key("config"), Key("counters"),
                                   Key("program"), Key("samples")));
  EXPECT_EQ(client.Number("fds"), before + 6);
  // Two grants share nothing.
  EXPECT_NE(one.ids.at("program"), all.ids.at("program"));
  EXPECT_NE(one.ids.at("counters"), all.ids.at("counters"));
  EXPECT_EQ(client.Ask("acquire packet_sampler program handles=gate"),
            "refused unknown-handle");
  EXPECT_EQ(client.Number("fds"), before + 6);
}

TEST_F(RightsTest, FdsAreClosedByAnExec) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  Hold(client, "packet_sampler");
  client.Acquire("reuseport_steer program");
  EXPECT_EQ(client.Ask("inherited"), "ok 0 of 8");
}

// Why PROGRAM is a delivery that manifest and policy have to allow: its holder
// can run the program at will.
TEST_F(RightsTest, AProgramsFdIsTheRightToRunIt) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  Hold(client, "packet_sampler");
  EXPECT_NE(acquired_.program(), 0u);
  client.Do("run 0 5");
  const auto description = administrator().Describe("packet_sampler");
  ASSERT_TRUE(description.ok()) << description.status();
  EXPECT_TRUE(description->detail().runnable());
}

TEST_F(RightsTest, AnAttachmentBringsNoProgram) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  Connect(client);
  client.Do("udp");
  const uint64_t before = client.Number("fds");
  const Acquired attached = client.Acquire("packet_sampler attach socket=0");
  EXPECT_EQ(attached.delivery, "attach");
  EXPECT_THAT(attached.ids,
              ElementsAre(Key("config"), Key("counters"), Key("samples")));
  EXPECT_EQ(client.Number("fds"), before + 3);
  EXPECT_EQ(client.Ask("run 0 1"), "failed: no handle program");
  EXPECT_EQ(client.Ask("traffic 0 10 0"), "ok 10 10");
}

}  // namespace
}  // namespace bpfgrant::test
