// Rules that hang on what a client executes: when it is read, and what happens
// while it is.

#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/wire/limits.h"
#include "spdlog/sinks/ostream_sink.h"
#include "spdlog/spdlog.h"
#include "tests/wire/broker_fixture.h"

namespace bpfgrant::broker_test {
namespace {

using ::testing::HasSubstr;
using Mode = ScriptedLoader::Mode;
using Parts = TestBroker::Parts;

class ExecutablesTest : public WireTest {
 protected:
  static daemon::CompiledRule AllowServer() {
    daemon::CompiledRule rule = Allow("sampler", 100);
    rule.add_executable()->set_path("/usr/bin/server");
    return rule;
  }
  static daemon::CompiledRule DenyShell() {
    daemon::CompiledRule rule = Allow("sampler", 100);
    rule.set_name("no-shell");
    rule.set_deny(true);
    rule.set_quota(0);
    rule.add_executable()->set_path("/bin/sh");
    return rule;
  }
  static BrokerSetup With(const std::vector<daemon::CompiledRule>& rules) {
    BrokerSetup setup;
    setup.catalog = Catalog({TestProgram()}, rules);
    setup.administrator_group = Ordinary().gid;
    return setup;
  }
  void Execute(const std::string& path) {
    broker().Ask(
        [path](Parts& parts) { parts.scripted.executes.set_path(path); });
  }
  void SetMode(Mode mode) {
    broker().Ask([mode](Parts& parts) { parts.scripted.executable = mode; });
  }
  // How often the loader was asked.
  size_t Asked() {
    return broker().Ask([](Parts& parts) {
      size_t count = 0;
      for (const daemon::LoaderRequest& request : parts.scripted.requests()) {
        count += request.has_executable();
      }
      return count;
    });
  }
  static size_t Listed(RawPeer& peer) {
    v1::ClientFrame frame;
    frame.mutable_list();
    return peer.Call(frame).frame.list().program_size();
  }
  static v1::ClientFrame EnforceFrame() {
    v1::ClientFrame frame;
    frame.mutable_reload()->set_enforce(true);
    return frame;
  }
};

TEST_F(ExecutablesTest, DecidesWhoGetsAProgramAndSeesIt) {
  Start(With({AllowServer()}));
  Execute("/usr/bin/server");
  RawPeer peer = Open();
  EXPECT_TRUE(peer.Acquire().frame.has_acquire());
  Execute("/usr/bin/other");
  EXPECT_EQ(peer.Acquire().reason(), v1::REASON_DENIED_BY_DEFAULT);
}

TEST_F(ExecutablesTest, NobodyIsLookedAtForOthersRules) {
  daemon::CompiledRule others = AllowServer();
  others.set_name("others");
  others.set_everyone(false);
  others.add_uid(Ordinary().uid + 1);
  Start(With({Allow("sampler", 100), others}));
  RawPeer peer = Open();
  EXPECT_TRUE(peer.Acquire().frame.has_acquire());
  EXPECT_EQ(Listed(peer), 1u);
  EXPECT_EQ(Asked(), 0u);
}

// The session outlives execve(2): what counts is what is executed now.
TEST_F(ExecutablesTest, IsReadForEachRequest) {
  Start(With({Allow("sampler", 100), DenyShell()}));
  Execute("/usr/bin/server");
  RawPeer peer = Open();
  EXPECT_TRUE(peer.Acquire().frame.has_acquire());
  Execute("/bin/sh");
  EXPECT_EQ(peer.Acquire().reason(), v1::REASON_DENIED_BY_RULE);
}

TEST_F(ExecutablesTest, ReadOnceItServesWhatIsExecutedLater) {
  StartWithout(&daemon::Mitigations::executable_each_time,
               With({Allow("sampler", 100), DenyShell()}));
  Execute("/usr/bin/server");
  RawPeer peer = Open();
  EXPECT_TRUE(peer.Acquire().frame.has_acquire());
  Execute("/bin/sh");
  EXPECT_TRUE(peer.Acquire().frame.has_acquire());
}

// What is not known is no reason to allow, and none to do without a denial.
TEST_F(ExecutablesTest, NotKnownItSpeaksAgainstTheCaller) {
  Start(With({AllowServer()}));
  RawPeer peer = Open();
  EXPECT_EQ(peer.Acquire().reason(), v1::REASON_DENIED_BY_DEFAULT);
  Start(With({Allow("sampler", 100), DenyShell()}));
  RawPeer other = Open();
  EXPECT_EQ(other.Acquire().reason(), v1::REASON_DENIED_BY_RULE);
}

TEST_F(ExecutablesTest, ALoaderThatCannotTellIsNotAsked) {
  BrokerSetup setup = With({AllowServer()});
  setup.no_executables = "as the test wants it";
  Start(std::move(setup));
  Execute("/usr/bin/server");
  RawPeer peer = Open();
  EXPECT_EQ(peer.Acquire().reason(), v1::REASON_DENIED_BY_DEFAULT);
  EXPECT_EQ(Asked(), 0u);
}

TEST_F(ExecutablesTest, ALoaderThatCannotTellIsWarnedOf) {
  BrokerSetup setup = With({});
  setup.no_executables = "no capability";
  Start(std::move(setup));
  broker().Ask([](Parts& parts) {
    parts.scripted.next =
        Catalog({TestProgram()}, {AllowServer(), DenyShell()});
  });
  RawPeer administrator = Open();
  std::ostringstream log;
  const auto usual = spdlog::default_logger();
  auto logger = std::make_shared<spdlog::logger>(
      "test", std::make_shared<spdlog::sinks::ostream_sink_mt>(log));
  logger->set_level(spdlog::level::warn);
  spdlog::set_default_logger(std::move(logger));
  EXPECT_TRUE(administrator.Call(EnforceFrame()).frame.has_reload());
  spdlog::set_default_logger(usual);
  EXPECT_THAT(log.str(), HasSubstr("not known of any process (no capability): "
                                   "it allows nobody"));
  EXPECT_THAT(log.str(), HasSubstr("it denies whomever else it names"));
}

TEST_F(ExecutablesTest, ALoaderThatKeepsSilentIsNotWaitedForLong) {
  Start(With({AllowServer()}));
  SetMode(Mode::kSilent);
  RawPeer peer = Open();
  EXPECT_EQ(peer.Acquire().reason(), v1::REASON_BUSY);
}

TEST_F(ExecutablesTest, ASessionThatEndsMeanwhileGetsNothing) {
  Start(With({AllowServer()}));
  Execute("/usr/bin/server");
  SetMode(Mode::kSilent);
  {
    RawPeer peer = Open();
    ASSERT_EQ(peer.Send(AcquireFrame()), 0);
    broker().WaitUntil("it is asked",
                       [](Parts& parts) { return parts.scripted.held() > 0; });
  }
  broker().Settle();
  broker().Ask([](Parts& parts) { parts.scripted.AnswerHeld(); });
  ExpectNothingLeft();
  RawPeer next = Open();
  EXPECT_TRUE(next.Acquire().frame.has_acquire());
}

TEST_F(ExecutablesTest, OneSessionsRequestsUnderWayAreLimited) {
  Start(With({AllowServer()}));
  Execute("/usr/bin/server");
  SetMode(Mode::kSilent);
  RawPeer peer = Open();
  for (size_t i = 0; i <= kMaxPendingPerSession; ++i) {
    ASSERT_EQ(peer.Send(AcquireFrame()), 0);
  }
  EXPECT_EQ(peer.Receive().reason(), v1::REASON_BUSY);
  EXPECT_EQ(Asked(), kMaxPendingPerSession);
  broker().Ask([](Parts& parts) { parts.scripted.AnswerHeld(); });
  for (size_t i = 0; i < kMaxPendingPerSession; ++i) {
    EXPECT_TRUE(peer.Receive().frame.has_acquire());
  }
}

TEST_F(ExecutablesTest, IsToldWhatItMayHave) {
  BrokerSetup setup = With({AllowServer()});
  setup.administrator_group.reset();
  Start(std::move(setup));
  RawPeer peer = Open();
  Execute("/usr/bin/other");
  EXPECT_EQ(Listed(peer), 0u);
  Execute("/usr/bin/server");
  EXPECT_EQ(Listed(peer), 1u);
}

// Who was never looked at is, before the policy is enforced.
TEST_F(ExecutablesTest, AnEnforcedReloadLooksAtThoseWhoHoldGrants) {
  Start(With({Allow("sampler", 100)}));
  RawPeer peer = Open();
  ASSERT_TRUE(peer.Acquire().frame.has_acquire());
  EXPECT_EQ(Asked(), 0u);
  RawPeer administrator = Open();
  Execute("/usr/bin/server");
  broker().Ask([](Parts& parts) {
    parts.scripted.next = Catalog({TestProgram()}, {AllowServer()});
  });
  EXPECT_EQ(administrator.Call(EnforceFrame()).frame.reload().revoked(), 0u);
  Execute("/bin/sh");
  EXPECT_EQ(administrator.Call(EnforceFrame()).frame.reload().revoked(), 1u);
}

TEST_F(ExecutablesTest, AnEnforcedReloadDoesNotTrustWhatWasKnownOnce) {
  Start(With({AllowServer()}));
  Execute("/usr/bin/server");
  RawPeer peer = Open();
  ASSERT_TRUE(peer.Acquire().frame.has_acquire());
  RawPeer administrator = Open();
  broker().Ask([](Parts& parts) {
    parts.scripted.next = Catalog({TestProgram()}, {AllowServer()});
  });
  SetMode(Mode::kSilent);
  EXPECT_EQ(administrator.Call(EnforceFrame()).frame.reload().revoked(), 1u);
}

}  // namespace
}  // namespace bpfgrant::broker_test
