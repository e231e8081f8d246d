// What is left to a client whose own seccomp filter forbids it bpf(2), as
// container managers and service managers do. The README's table:
//
//   forbidden            works                             does not
//   bpf                  acquire, release, events          lookups and updates
//                        SO_ATTACH_BPF by setsockopt       BPF_PROG_TEST_RUN
//                        SO_ATTACH_BPF by io_uring         pinning
//                        an attachment by the daemon       asking for ids
//                        RingBuffer: mmap and poll
//                        MappedArray: mmap
//   bpf, io_uring_setup  the same, but for io_uring

#include "gtest/gtest.h"
#include "tests/harness/skip.h"
#include "tests/privileged/client_fixture.h"

namespace bpfgrant::test {
namespace {

class SeccompTest : public ClientTest {
 protected:
  // What has to work whatever is forbidden.
  void ExpectWorks(Nobody& client, const std::string& attach) {
    client.Do("udp");
    const Acquired acquired = client.Acquire("packet_sampler program");
    // It could not ask the kernel.
    EXPECT_EQ(acquired.program(), 0u);
    EXPECT_EQ(client.Ask(attach + " 0 0"), "ok");
    EXPECT_EQ(client.Ask("traffic 0 10 0"), "ok 10 10");
    EXPECT_EQ(client.Ask("wait-for-sample 0 0"), "ok 1");
    // One packet in so many that none of these is.
    EXPECT_EQ(client.Ask("one-in 0 1000000000"), "ok");
    EXPECT_EQ(client.Ask("traffic 0 10 0"), "ok 10 0");
    EXPECT_EQ(client.Ask("one-in 0 1"), "ok");
    EXPECT_EQ(client.Ask("traffic 0 10 0"), "ok 10 10");
    EXPECT_EQ(RevokeGrant(acquired.grant), 1u);
    EXPECT_EQ(client.Ask("traffic 0 10 0"), "ok 10 0");
    EXPECT_EQ(client.Ask("ended 0"), "ok revoked");
    client.Do("udp");
    client.Acquire("packet_sampler attach socket=1");
    EXPECT_EQ(client.Ask("traffic 1 10 1"), "ok 10 10");
    EXPECT_EQ(client.Ask("release 1"), "ok");
  }
};

TEST_F(SeccompTest, WithoutBpf) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  client.Do("forbid bpf");
  Connect(client);
  ExpectWorks(client, "attach");
  client.Acquire("packet_sampler program");
  for (const char* command : {"map 2 counters lookup", "map 2 config update",
                              "run 2 1", "pin 2 program /x", "create-map"}) {
    EXPECT_EQ(client.Ask(command), "error EPERM") << command;
  }
}

TEST_F(SeccompTest, WithoutBpfThroughItsOwnRing) {
  ASSERT_NO_FATAL_FAILURE(Start());
  BPFGRANT_REQUIRE_KERNEL(Status().kernel().socket_uring_setsockopt(),
                          "SOCKET_URING_OP_SETSOCKOPT");
  Nobody client;
  client.Do("forbid bpf");
  Connect(client);
  ExpectWorks(client, "attach-by-ring");
}

TEST_F(SeccompTest, WithoutBpfAndIoUring) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  client.Do("forbid bpf io_uring_setup io_uring_enter io_uring_register");
  Connect(client);
  ExpectWorks(client, "attach");
  client.Acquire("packet_sampler program");
  EXPECT_EQ(client.Ask("attach-by-ring 2 0"), "error EPERM");
}

}  // namespace
}  // namespace bpfgrant::test
