// The hole that the restrictions close: requests that a loop submits run as if
// a BPF program had called setsockopt, so capabilities are not asked for.

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "absl/strings/str_cat.h"
#include "tests/harness/process_tree.h"
#include "tests/loop/attach/attach_fixture.h"

namespace bpfgrant::test {
namespace {

using ::testing::AnyOf;
using ::testing::Eq;
using ::testing::StartsWith;

struct Option {
  const char* name;
  int level;
  int option;
};
// Each wants CAP_NET_ADMIN, which nobody has.
constexpr Option kOptions[] = {
    {"SoMark", SOL_SOCKET, SO_MARK},
    {"TcpRepair", IPPROTO_TCP, TCP_REPAIR},
    {"IpTransparent", IPPROTO_IP, IP_TRANSPARENT},
};
void PrintTo(const Option& option, std::ostream* out) { *out << option.name; }

class OptionTest : public AttachTest,
                   public ::testing::WithParamInterface<Option> {
 protected:
  // Has the loop submit a setsockopt that the client put into the queue.
  // Returns the request's result.
  std::string SetThroughLoop(Nobody& client, const std::string& socket) {
    MakeLoop(client);
    EXPECT_EQ(
        client.Ask(absl::StrCat("put 0 0 setsockopt ", socket, " ",
                                GetParam().level, " ", GetParam().option)),
        "ok");
    return client.Ask("enter 0");
  }
  std::string Value(Nobody& client, const std::string& socket) {
    return client.Ask(absl::StrCat("option ", socket, " ", GetParam().level,
                                   " ", GetParam().option));
  }
};

TEST_P(OptionTest, CannotBeSetThroughTheLoop) {
  BPFGRANT_START();
  Nobody client;
  const std::string socket = client.Word("tcp");
  // The request fails with EACCES, which is how a restricted ring refuses.
  EXPECT_EQ(SetThroughLoop(client, socket), "ok 0 1 -13");
  EXPECT_EQ(Value(client, socket), "ok 0");
}

TEST_P(OptionTest, CanBeSetWithoutTheRestrictions) {
  BPFGRANT_START("loop_restrictions");
  Nobody client;
  const std::string socket = client.Word("tcp");
  EXPECT_EQ(SetThroughLoop(client, socket), "ok 0 1 0");
  EXPECT_EQ(Value(client, socket), "ok 1");
}

INSTANTIATE_TEST_SUITE_P(Privileged, OptionTest, ::testing::ValuesIn(kOptions),
                         [](const auto& info) { return info.param.name; });

using RestrictionTest = AttachTest;

TEST_F(RestrictionTest, OneRequestAmongManyIsRefusedToo) {
  BPFGRANT_START();
  Nobody client;
  const std::string socket = client.Word("tcp");
  MakeLoop(client, PUPPET_SUBMIT, 3);
  ASSERT_EQ(client.Ask(absl::StrCat("put 0 0 setsockopt ", socket, " ",
                                    SOL_SOCKET, " ", SO_MARK)),
            "ok");
  ASSERT_EQ(client.Ask("put 0 1 nop"), "ok");
  ASSERT_EQ(client.Ask("put 0 2 nop"), "ok");
  EXPECT_EQ(client.Ask("enter 0"), "ok 0 3 -13");
}

TEST_F(RestrictionTest, RegisterCallsAreRestrictedOnceItIsEnabled) {
  BPFGRANT_START();
  Nobody client;
  MakeLoop(client);
  constexpr int kUnregisterFiles = 3, kPersonality = 9, kRestrictions = 11;
  for (const int call : {kUnregisterFiles, kPersonality, kRestrictions}) {
    EXPECT_THAT(client.Ask(absl::StrCat("register 0 ", call)),
                AnyOf(Eq("error EACCES"), Eq("error EBADFD")))
        << call;
  }
  EXPECT_EQ(client.Ask("resize 0 64 128"), "error EACCES");
}

TEST_F(RestrictionTest, RegisterCallsAreOpenWithoutTheRestrictions) {
  BPFGRANT_START("loop_restrictions");
  Nobody client;
  MakeLoop(client);
  constexpr int kPersonality = 9;
  EXPECT_THAT(client.Ask(absl::StrCat("register 0 ", kPersonality)),
              StartsWith("ok"));
}

// The restrictions are the ring's, not the grant's.
TEST_F(RestrictionTest, StayWhenTheGrantIsOver) {
  BPFGRANT_START();
  Nobody client;
  const std::string socket = client.Word("tcp");
  MakeLoop(client);
  ASSERT_EQ(client.Ask("release 0"), "ok");
  ASSERT_EQ(client.Ask(absl::StrCat("put 0 0 setsockopt ", socket, " ",
                                    SOL_SOCKET, " ", SO_MARK)),
            "ok");
  EXPECT_TRUE(WaitUntil(
      [&] { return client.Ask("enter 0 1").starts_with("ok 1"); }, kPatience));
  EXPECT_EQ(client.Ask(
                absl::StrCat("option ", socket, " ", SOL_SOCKET, " ", SO_MARK)),
            "ok 0");
}

TEST_F(RestrictionTest, HoldWhileAThreadRewritesEverything) {
  BPFGRANT_START();
  Nobody client;
  MakeLoop(client, PUPPET_SPIN);
  EXPECT_THAT(client.Ask("scribble 0 3000"), StartsWith("ok"));
  // The client is still there, and so is everybody else's service.
  Nobody other;
  MakeLoop(other);
  ASSERT_EQ(other.Ask("put 0 0 nop"), "ok");
  EXPECT_EQ(other.Ask("enter 0"), "ok 0 1 0");
}

}  // namespace
}  // namespace bpfgrant::test
