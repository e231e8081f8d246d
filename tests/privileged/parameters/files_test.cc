// Parameters that are fds: sockets of the right and the wrong kind, once,
// twice, closed meanwhile.

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "client/bpfgrant/grant.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/unique_fd.h"
#include "tests/harness/as_nobody.h"

namespace bpfgrant::test {
namespace {

using ::testing::HasSubstr;
using Files = std::vector<std::pair<std::string, int>>;

[[maybe_unused]] const int catalog =
    setenv("BPFGRANT_TEST_CATALOG", PARAMETERS_CATALOG, /*replace=*/1);

class FilesTest : public NobodyTest {
 protected:
  FilesTest() : NobodyTest("steered") {}

  // A socket of 127.0.0.1 at `port`; 0: at any.
  UniqueFd Bound(int type, uint16_t port, bool shared = true) {
    UniqueFd socket(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
    const int on = 1;
    if (shared) {
      EXPECT_EQ(
          setsockopt(socket.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)),
          0);
    }
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    EXPECT_EQ(bind(socket.get(), reinterpret_cast<sockaddr*>(&address),
                   sizeof(address)),
              0);
    return socket;
  }
  UniqueFd Listener(uint16_t port = 0) {
    UniqueFd socket = Bound(SOCK_STREAM, port);
    EXPECT_EQ(listen(socket.get(), 16), 0);
    return socket;
  }
  static uint16_t PortOf(const UniqueFd& socket) {
    sockaddr_in address{};
    socklen_t length = sizeof(address);
    getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &length);
    return ntohs(address.sin_port);
  }
  absl::StatusOr<Grant> Acquire(const Files& files, int target = -1) {
    return connection().Acquire(
        {.program = "steered",
         .interface = "steered/1",
         .delivery = target < 0 ? v1::DELIVERY_PROGRAM : v1::DELIVERY_ATTACH,
         .target = target,
         .files = files});
  }
  void ExpectRefused(const Files& files, v1::Reason reason,
                     const std::string& what) {
    const auto grant = Acquire(files);
    EXPECT_EQ(ReasonOf(grant.status()), reason) << grant.status();
    EXPECT_THAT(std::string(grant.status().message()), HasSubstr(what));
  }
  // Connections that went where the program said, or not.
  static uint64_t Count(const Grant& grant, uint32_t steered) {
    uint64_t count = 0;
    EXPECT_EQ(bpf_map_lookup_elem((*grant.Find("chosen"))->fd.get(), &steered,
                                  &count),
              0);
    return count;
  }
  static void Connect(uint16_t port) {
    const UniqueFd client(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    EXPECT_EQ(connect(client.get(), reinterpret_cast<sockaddr*>(&address),
                      sizeof(address)),
              0);
  }
};

TEST_F(FilesTest, AListenerIsInTheMapBeforeTheGrantIsThere) {
  BPFGRANT_AS_NOBODY();
  const UniqueFd chosen = Listener();
  const uint16_t port = PortOf(chosen);
  const UniqueFd other = Listener(port);
  const auto grant = Acquire({{"listener", chosen.get()}}, chosen.get());
  ASSERT_TRUE(grant.ok()) << grant.status();
  EXPECT_EQ(grant->delivery(), v1::DELIVERY_ATTACH);
  for (int i = 0; i < 8; ++i) {
    Connect(port);
    const UniqueFd accepted(
        accept4(chosen.get(), nullptr, nullptr, SOCK_CLOEXEC));
    EXPECT_TRUE(accepted.valid());
  }
  EXPECT_EQ(Count(*grant, 1), 8u);
  EXPECT_EQ(Count(*grant, 0), 0u);
}

TEST_F(FilesTest, OneThatStopsListeningIsInItNoMore) {
  BPFGRANT_AS_NOBODY();
  UniqueFd chosen = Listener();
  const uint16_t port = PortOf(chosen);
  const UniqueFd other = Listener(port);
  const auto grant = Acquire({{"listener", chosen.get()}}, other.get());
  ASSERT_TRUE(grant.ok()) << grant.status();
  Connect(port);
  EXPECT_EQ(Count(*grant, 1), 1u);
  EXPECT_EQ(shutdown(chosen.get(), SHUT_RDWR), 0);
  Connect(port);
  EXPECT_EQ(Count(*grant, 1), 1u);
  EXPECT_EQ(Count(*grant, 0), 1u);
}

TEST_F(FilesTest, WhatIsNoneOfTheKind) {
  BPFGRANT_AS_NOBODY();
  const auto refused = [this](int fd) {
    ExpectRefused({{"listener", fd}}, v1::REASON_PARAMETER_RANGE,
                  "'listener' is an fd: TCP_LISTENER");
  };
  const UniqueFd bound = Bound(SOCK_STREAM, 0);
  refused(bound.get());  // it does not listen
  const UniqueFd stopped = Listener();
  shutdown(stopped.get(), SHUT_RDWR);
  refused(stopped.get());
  const UniqueFd datagrams = Bound(SOCK_DGRAM, 0);
  refused(datagrams.get());
  const UniqueFd local(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  refused(local.get());
  const UniqueFd file(open("/dev/null", O_RDONLY | O_CLOEXEC));
  refused(file.get());
  const UniqueFd path(open("/", O_PATH | O_CLOEXEC));
  refused(path.get());
  // The kernel's word: no group.
  UniqueFd alone = Bound(SOCK_STREAM, 0, /*shared=*/false);
  EXPECT_EQ(listen(alone.get(), 1), 0);
  ExpectRefused({{"listener", alone.get()}}, v1::REASON_PARAMETER_RANGE,
                "the kernel does not put that socket into a map");
  // None of them lives.
  const auto grants = connection().Grants();
  ASSERT_TRUE(grants.ok()) << grants.status();
  for (const v1::GrantInfo& grant : grants->grant()) {
    EXPECT_NE(grant.ended(), v1::REASON_UNSPECIFIED);
  }
}

TEST_F(FilesTest, Numbers) {
  BPFGRANT_AS_NOBODY();
  const UniqueFd one = Listener();
  const UniqueFd two = Listener();
  ExpectRefused({}, v1::REASON_PARAMETER_MISSING, "'listener'");
  ExpectRefused({{"listener", one.get()}, {"listener", two.get()}},
                v1::REASON_INVALID_ARGUMENT, "twice");
  // The kernel has a socket in one such map at a time.
  ExpectRefused({{"listener", one.get()}, {"spare", one.get()}},
                v1::REASON_PARAMETER_RANGE, "'spare'");
  ExpectRefused({{"listener", one.get()}, {"other", two.get()}},
                v1::REASON_PARAMETER_UNKNOWN, "'other'");
  const auto beside = [&](uint32_t number, int target) {
    v1::ParameterValue value;
    value.set_name("listener");
    value.set_fd(number);
    return ReasonOf(connection()
                        .Acquire({.program = "steered",
                                  .interface = "steered/1",
                                  .target = target,
                                  .parameters = {value}})
                        .status());
  };
  EXPECT_EQ(beside(0, -1), v1::REASON_INVALID_ARGUMENT);
  EXPECT_EQ(beside(1, one.get()), v1::REASON_INVALID_ARGUMENT);
  // The target is no parameter's, and a parameter's is no target.
  const UniqueFd three = Listener();
  const auto both = Acquire({{"listener", two.get()}, {"spare", three.get()}});
  EXPECT_TRUE(both.ok()) << both.status();
  const auto grant = connection().Acquire({.program = "steered",
                                           .interface = "steered/1",
                                           .target = two.get(),
                                           .files = {{"listener", one.get()}}});
  EXPECT_EQ(ReasonOf(grant.status()), v1::REASON_UNEXPECTED_FDS);
}

class UncheckedFilesTest : public FilesTest {
 protected:
  std::vector<std::string> Without() override { return {"parameter_files"}; }
};

TEST_F(UncheckedFilesTest, ASocketOfAnotherKindIsTaken) {
  BPFGRANT_AS_NOBODY();
  const UniqueFd datagrams = Bound(SOCK_DGRAM, 0);
  const auto grant = Acquire({{"listener", datagrams.get()}});
  EXPECT_TRUE(grant.ok()) << grant.status();
}

}  // namespace
}  // namespace bpfgrant::test
