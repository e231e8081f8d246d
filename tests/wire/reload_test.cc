// Another catalog, another policy: who is ended, who is told, who goes on.

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "proto/wire/limits.h"
#include "tests/wire/broker_fixture.h"

namespace bpfgrant::broker_test {
namespace {

using Mode = ScriptedLoader::Mode;
using Parts = TestBroker::Parts;

class ReloadTest : public WireTest {
 protected:
  static TestProgram Sampler(const std::string& version, uint32_t pool = 4) {
    TestProgram program;
    program.version = version;
    program.pool = pool;
    return program;
  }
  static TestProgram Tap() {
    TestProgram tap;
    tap.name = "tap";
    tap.handles = 0;
    return tap;
  }
  static std::vector<daemon::CompiledRule> Both() {
    return {Allow("sampler", 100), Allow("tap", 100)};
  }
  // The next thing that the peer hears is that its grant ended so.
  static void ExpectToldOfEnd(RawPeer& peer, uint64_t grant,
                              v1::Reason reason) {
    const v1::ServerFrame frame = peer.Receive().frame;
    EXPECT_EQ(frame.event().type(), v1::Event::TYPE_GRANT_ENDED);
    EXPECT_EQ(frame.event().grant().grant(), grant);
    EXPECT_EQ(frame.event().reason(), reason);
  }
  static v1::ClientFrame ReloadFrame() {
    v1::ClientFrame frame;
    frame.mutable_reload();
    return frame;
  }
};

TEST_F(ReloadTest, WithdrawnProgramEndsItsGrantsOnly) {
  Start();
  RawPeer loses = Open();
  RawPeer keeps = Open();
  const uint64_t grant = loses.Acquire().frame.acquire().grant();
  ASSERT_TRUE(keeps.Acquire("tap").frame.has_acquire());
  EXPECT_EQ(broker().Replace(Catalog({Tap()}, Both())), 1u);
  EXPECT_EQ(broker().OpenGates(), 1u);
  ExpectToldOfEnd(loses, grant, v1::REASON_WITHDRAWN);
  EXPECT_EQ(loses.Acquire().reason(), v1::REASON_UNKNOWN_PROGRAM);
  EXPECT_TRUE(keeps.Acquire("tap").frame.has_acquire());
}

// What the new policy would not give goes on and is told, until somebody asks
// for it to be enforced; and then nothing else ends.
TEST_F(ReloadTest, WhatTheNewPolicyWouldNotGiveGoesOnUntilItIsEnforced) {
  BrokerSetup setup;
  setup.administrator_group = Ordinary().gid;
  Start(std::move(setup));
  RawPeer peer = Open();
  RawPeer administrator = Open();
  const uint64_t grant = peer.Acquire().frame.acquire().grant();
  ASSERT_TRUE(peer.Acquire("tap").frame.has_acquire());
  broker().Ask([](Parts& parts) {
    parts.scripted.next = Catalog({Sampler("1"), Tap()}, {Allow("tap", 100)});
  });
  const v1::ReloadReply told = administrator.Call(ReloadFrame()).frame.reload();
  EXPECT_EQ(told.revoked(), 0u);
  ASSERT_EQ(told.not_allowed_size(), 1);
  EXPECT_EQ(told.not_allowed(0).grant(), grant);
  EXPECT_EQ(broker().OpenGates(), 2u);
  EXPECT_EQ(peer.Acquire().reason(), v1::REASON_DENIED_BY_DEFAULT);

  v1::ClientFrame enforce = ReloadFrame();
  enforce.mutable_reload()->set_enforce(true);
  const v1::ReloadReply ended = administrator.Call(enforce).frame.reload();
  EXPECT_EQ(ended.revoked(), 1u);
  EXPECT_EQ(ended.not_allowed_size(), 0);
  ExpectToldOfEnd(peer, grant, v1::REASON_POLICY_CHANGED);
  EXPECT_EQ(broker().OpenGates(), 1u);
}

// A reload that is rejected enforces nothing, and the one after it nothing
// that it was not asked for.
TEST_F(ReloadTest, ARejectedReloadLeavesNothingToEnforce) {
  BrokerSetup setup;
  setup.administrator_group = Ordinary().gid;
  Start(std::move(setup));
  RawPeer peer = Open();
  RawPeer administrator = Open();
  ASSERT_TRUE(peer.Acquire().frame.has_acquire());
  broker().Ask([](Parts& parts) {
    parts.scripted.next = Catalog({Sampler("1")}, {});
    parts.scripted.reload = Mode::kRefuse;
  });
  v1::ClientFrame enforce = ReloadFrame();
  enforce.mutable_reload()->set_enforce(true);
  EXPECT_EQ(administrator.Call(enforce).reason(), v1::REASON_RELOAD_REJECTED);
  broker().Ask([](Parts& parts) { parts.scripted.reload = Mode::kAnswer; });
  const v1::ReloadReply told = administrator.Call(ReloadFrame()).frame.reload();
  EXPECT_EQ(told.revoked(), 0u);
  EXPECT_EQ(told.not_allowed_size(), 1);
  EXPECT_EQ(broker().OpenGates(), 1u);
}

TEST_F(ReloadTest, ManyThatAreNotAllowedStayWithinAFrame) {
  BrokerSetup setup;
  setup.administrator_group = Ordinary().gid;
  setup.grants_per_session = 2000;
  Start(std::move(setup));
  RawPeer peer = Open();
  for (int i = 0; i < 1000; ++i) {
    ASSERT_TRUE(peer.Acquire("tap").frame.has_acquire());
  }
  broker().Ask([](Parts& parts) {
    parts.scripted.next = Catalog({Sampler("1"), Tap()}, {});
  });
  RawPeer administrator = Open();
  const v1::ServerFrame frame = administrator.Call(ReloadFrame()).frame;
  EXPECT_LE(frame.ByteSizeLong(), kMaxFrameBytes);
  EXPECT_GT(frame.reload().not_allowed_size(), 10);
}

TEST_F(ReloadTest, ReplacedProgramLeavesGrantsAndIsGrantedAnew) {
  Start();
  RawPeer peer = Open();
  ASSERT_TRUE(peer.Acquire().frame.has_acquire());
  EXPECT_EQ(broker().Replace(Catalog({Sampler("2"), Tap()}, Both())), 0u);
  EXPECT_EQ(broker().OpenGates(), 1u);
  ASSERT_TRUE(peer.Acquire().frame.has_acquire());
  v1::ClientFrame frame;
  frame.mutable_grants();
  const v1::GrantsReply grants = peer.Call(frame).frame.grants();
  ASSERT_EQ(grants.grant_size(), 2);
  EXPECT_EQ(grants.grant(0).digest(), "digest 1");
  EXPECT_EQ(grants.grant(1).digest(), "digest 2");
  broker().Settle();
  // Two held, four of each pool ready; none of the old ones left.
  EXPECT_EQ(broker().Look().gates, 2u + 4u + 4u);
}

TEST_F(ReloadTest, UnavailableProgramIsRefused) {
  Start();
  TestProgram broken = Sampler("2");
  broken.available = false;
  broker().Replace(Catalog({broken, Tap()}, Both()));
  RawPeer peer = Open();
  EXPECT_EQ(peer.Acquire().reason(), v1::REASON_PROGRAM_UNAVAILABLE);
}

TEST_F(ReloadTest, WhoWaitsForAReplacedProgramIsAnswered) {
  Start();
  broker().Replace(Catalog({Sampler("2", 0)}, Both()));
  broker().Ask([](Parts& parts) { parts.scripted.load = Mode::kSilent; });
  RawPeer peer = Open();
  ASSERT_EQ(peer.Send(AcquireFrame()), 0);
  broker().WaitUntil("the loader has it",
                     [](Parts& parts) { return parts.scripted.held() == 1; });
  broker().Replace(Catalog({Sampler("3", 0)}, Both()));
  EXPECT_EQ(peer.Receive().reason(), v1::REASON_PROGRAM_UNAVAILABLE);
  broker().Ask([](Parts& parts) { parts.scripted.AnswerHeld(); });
  EXPECT_TRUE(peer.Acquire().frame.has_acquire());
  peer.Close();
  ExpectNothingLeft();
  broker().Settle();
  EXPECT_EQ(broker().Look().gates, 0u);
}

TEST_F(ReloadTest, IsTheAdministratorsAndTellsWatchers) {
  BrokerSetup setup;
  setup.administrator_group = Ordinary().gid;
  Start(std::move(setup));
  RawPeer owner = Open();
  const uint64_t grant = owner.Acquire().frame.acquire().grant();
  broker().Ask(
      [](Parts& parts) { parts.scripted.next = Catalog({Tap()}, Both()); });
  RawPeer administrator = Open();
  v1::ClientFrame watch;
  watch.mutable_watch();
  ASSERT_TRUE(administrator.Call(watch).frame.has_watch());
  const v1::ReloadReply reply =
      administrator.Call(ReloadFrame()).frame.reload();
  EXPECT_EQ(reply.programs(), 1u);
  EXPECT_EQ(reply.rules(), 2u);
  EXPECT_EQ(reply.revoked(), 1u);
  ExpectToldOfEnd(owner, grant, v1::REASON_WITHDRAWN);
}

TEST_F(ReloadTest, RejectedReloadLeavesEverything) {
  BrokerSetup setup;
  setup.administrator_group = Ordinary().gid;
  Start(std::move(setup));
  RawPeer peer = Open();
  ASSERT_TRUE(peer.Acquire().frame.has_acquire());
  broker().Ask([](Parts& parts) { parts.scripted.reload = Mode::kRefuse; });
  EXPECT_EQ(peer.Call(ReloadFrame()).reason(), v1::REASON_RELOAD_REJECTED);
  EXPECT_EQ(broker().OpenGates(), 1u);
  EXPECT_TRUE(peer.Acquire().frame.has_acquire());
}

// They share the reload that begins after they came.
TEST_F(ReloadTest, ManyAtOnceAreAllAnswered) {
  BrokerSetup setup;
  setup.administrator_group = Ordinary().gid;
  Start(std::move(setup));
  broker().Ask([](Parts& parts) {
    parts.scripted.next = DefaultCatalog();
    parts.scripted.reload = Mode::kSilent;
  });
  RawPeer peer = Open();
  for (int i = 0; i < 10; ++i) ASSERT_EQ(peer.Send(ReloadFrame()), 0);
  v1::ClientFrame status;
  status.mutable_status();
  EXPECT_TRUE(peer.Call(status).frame.has_status());
  broker().Ask([](Parts& parts) { parts.scripted.AnswerHeld(); });
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(peer.Receive().frame.has_reload());
  }
  EXPECT_EQ(broker().Ask([](Parts& parts) {
    int reloads = 0;
    for (const auto& request : parts.scripted.requests()) {
      reloads += request.has_reload();
    }
    return reloads;
  }),
            2);
}

class PagingTest : public ReloadTest {
 protected:
  // Follows `next` to the end; how many entries there were in all.
  int CountListed(RawPeer& peer, int& pages) {
    int listed = 0;
    v1::ClientFrame frame;
    frame.mutable_list();
    for (pages = 0; pages < 1000; ++pages) {
      const v1::ServerFrame reply = peer.Call(frame).frame;
      EXPECT_TRUE(reply.has_list());
      EXPECT_LE(reply.ByteSizeLong(), kMaxFrameBytes);
      listed += reply.list().program_size();
      if (reply.list().next().empty()) return listed;
      frame.mutable_list()->set_after(reply.list().next());
    }
    return listed;
  }
};

TEST_F(PagingTest, ListOfManyProgramsStaysWithinFrames) {
  std::vector<TestProgram> programs;
  for (int i = 0; i < 2000; ++i) {
    TestProgram program;
    program.name = absl::StrCat("p", i);
    program.pool = 0;
    // Sizes that do not divide a page.
    program.description = std::string(i % 300, 'd');
    programs.push_back(program);
  }
  BrokerSetup setup;
  setup.catalog = Catalog(programs, {Allow("*", 10)});
  Start(std::move(setup));
  RawPeer peer = Open();
  int pages = 0;
  EXPECT_EQ(CountListed(peer, pages), 2000);
  EXPECT_GT(pages, 5);
}

TEST_F(PagingTest, OneProgramLargerThanAPageIsListedAlone) {
  std::vector<TestProgram> programs(3, Sampler("1", 0));
  for (int i = 0; i < 3; ++i) {
    programs[i].name = absl::StrCat("p", i);
    programs[i].description = std::string(kListReplyBytes + 1000, 'd');
  }
  BrokerSetup setup;
  setup.catalog = Catalog(programs, {Allow("*", 10)});
  Start(std::move(setup));
  RawPeer peer = Open();
  int pages = 0;
  EXPECT_EQ(CountListed(peer, pages), 3);
}

TEST_F(PagingTest, ListHidesWhatOneMayNotHave) {
  BrokerSetup setup;
  setup.catalog = Catalog({Sampler("1"), Tap()}, {Allow("tap", 10)});
  Start(std::move(setup));
  RawPeer peer = Open();
  v1::ClientFrame frame;
  frame.mutable_list();
  const v1::ListReply list = peer.Call(frame).frame.list();
  ASSERT_EQ(list.program_size(), 1);
  EXPECT_EQ(list.program(0).name(), "tap");
  frame.mutable_describe()->set_program("sampler");
  EXPECT_EQ(peer.Call(frame).reason(), v1::REASON_UNKNOWN_PROGRAM);
}

TEST_F(PagingTest, ManyGrantsStayWithinFrames) {
  BrokerSetup setup;
  setup.grants_per_session = 2000;
  Start(std::move(setup));
  RawPeer peer = Open();
  for (int i = 0; i < 1000; ++i) {
    ASSERT_TRUE(peer.Acquire("tap").frame.has_acquire());
  }
  uint64_t last = 0;
  int seen = 0;
  v1::ClientFrame frame;
  frame.mutable_grants();
  int pages = 0;
  for (; pages < 100; ++pages) {
    const v1::ServerFrame reply = peer.Call(frame).frame;
    EXPECT_LE(reply.ByteSizeLong(), kMaxFrameBytes);
    for (const v1::GrantInfo& grant : reply.grants().grant()) {
      EXPECT_GT(grant.grant(), last);
      last = grant.grant();
      ++seen;
    }
    if (reply.grants().next() == 0) break;
    frame.mutable_grants()->set_after(reply.grants().next());
  }
  EXPECT_EQ(seen, 1000);
  EXPECT_GT(pages, 0);
}

}  // namespace
}  // namespace bpfgrant::broker_test
