// What was denied is kept, for administrators; nobody can push out what others
// were denied.

#include "daemon/broker/denials.h"

#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/wire/broker_fixture.h"

namespace bpfgrant::broker_test {
namespace {

using broker::Denials;

policy::Subject User(uid_t uid) {
  policy::Subject subject;
  subject.uid = uid;
  subject.gid = uid;
  subject.location = policy::Locate("/system.slice/a.service/x");
  subject.label = "";
  return subject;
}

v1::Verdict ByDefault() {
  v1::Verdict verdict;
  verdict.set_reason(v1::REASON_DENIED_BY_DEFAULT);
  return verdict;
}

std::vector<v1::Denial> All(const Denials& denials) {
  std::vector<v1::Denial> all;
  denials.ForEach(0, [&](const v1::Denial& denial) {
    all.push_back(denial);
    return true;
  });
  return all;
}

TEST(DenialsTest, TheSameIsCounted) {
  Denials denials;
  EXPECT_TRUE(denials.Add(User(1), "x", ByDefault(), 10));
  EXPECT_FALSE(denials.Add(User(1), "x", ByDefault(), 20));
  EXPECT_TRUE(denials.Add(User(1), "y", ByDefault(), 30));
  EXPECT_TRUE(denials.Add(User(2), "x", ByDefault(), 40));
  v1::Verdict by_rule;
  by_rule.set_reason(v1::REASON_DENIED_BY_RULE);
  by_rule.set_rule("r");
  EXPECT_TRUE(denials.Add(User(1), "x", by_rule, 50));
  const auto all = All(denials);
  ASSERT_EQ(all.size(), 4u);
  EXPECT_EQ(all[0].count(), 2u);
  EXPECT_EQ(all[0].first_unix_ms(), 10);
  EXPECT_EQ(all[0].last_unix_ms(), 20);
  EXPECT_EQ(all[0].unit(), "a.service");
  EXPECT_EQ(all[0].subject().cgroup(), "/system.slice/a.service/x");
  EXPECT_EQ(all[3].verdict().rule(), "r");
}

TEST(DenialsTest, OneUserPushesOutOnlyItsOwn) {
  Denials denials;
  denials.Add(User(1), "x", ByDefault(), 1);
  for (int i = 0; i < 10'000; ++i) {
    denials.Add(User(2), absl::StrCat("p", i), ByDefault(), i);
  }
  const auto all = All(denials);
  ASSERT_EQ(all.size(), 1 + Denials::kMostOfUser);
  EXPECT_EQ(all[0].subject().uid(), 1u);
  EXPECT_EQ(all.back().program(), "p9999");
}

// As somebody with subordinate uids can be.
TEST(DenialsTest, AFewUsersWhoAskALotPushOutThemselves) {
  Denials denials;
  denials.Add(User(1), "x", ByDefault(), 1);
  for (uid_t uid = 2; uid < 100; ++uid) {
    for (int i = 0; i < 100; ++i) {
      denials.Add(User(uid), absl::StrCat("p", i), ByDefault(), i);
    }
  }
  EXPECT_EQ(denials.size(), Denials::kMost);
  EXPECT_FALSE(denials.Add(User(1), "x", ByDefault(), 2));
}

TEST(DenialsTest, ManyUsersAreBounded) {
  Denials denials;
  for (uid_t uid = 0; uid < 3000; ++uid) {
    denials.Add(User(uid), "x", ByDefault(), uid);
  }
  EXPECT_EQ(denials.size(), Denials::kMost);
  // Those that were pushed out are new again.
  EXPECT_TRUE(denials.Add(User(0), "x", ByDefault(), 1));
  EXPECT_FALSE(denials.Add(User(2999), "x", ByDefault(), 1));
}

TEST(DenialsTest, BytesThatAreNoTextAreEscaped) {
  Denials denials;
  policy::Subject odd = User(1);
  odd.location = policy::Locate("/\xff\n");
  odd.label = "\xfe";
  denials.Add(odd, "x", ByDefault(), 1);
  EXPECT_EQ(All(denials)[0].subject().cgroup(), "/\\xff\\n");
  v1::Denial copy;
  EXPECT_TRUE(copy.ParseFromString(All(denials)[0].SerializeAsString()));
}

class ObserveTest : public WireTest {
 protected:
  // With a rule that would deny `sampler`.
  void StartObserving() {
    daemon::CompiledRule observe = Allow("sampler", 0);
    observe.set_name("try");
    observe.set_deny(true);
    observe.set_observe(true);
    BrokerSetup setup;
    setup.administrator_group = Ordinary().gid;
    setup.catalog = Catalog({TestProgram{}}, {observe, Allow("sampler", 100)});
    Start(std::move(setup));
  }
  v1::DenialsReply Denials(RawPeer& peer) {
    v1::ClientFrame frame;
    frame.mutable_denials();
    return peer.Call(frame).frame.denials();
  }
};

TEST_F(ObserveTest, GrantsAndKeepsWhatItWouldDeny) {
  StartObserving();
  RawPeer peer = Open();
  ASSERT_TRUE(peer.Acquire().frame.has_acquire());
  ASSERT_TRUE(peer.Acquire().frame.has_acquire());
  EXPECT_EQ(peer.Acquire("absent").reason(), v1::REASON_DENIED_BY_DEFAULT);
  const v1::DenialsReply reply = Denials(peer);
  ASSERT_EQ(reply.denial_size(), 2);
  EXPECT_TRUE(reply.denial(0).verdict().allowed());
  EXPECT_EQ(reply.denial(0).verdict().observed_rule(), "try");
  EXPECT_EQ(reply.denial(0).count(), 2u);
  EXPECT_EQ(reply.denial(0).subject().uid(), Ordinary().uid);
  EXPECT_EQ(reply.denial(1).program(), "absent");
  EXPECT_FALSE(reply.denial(1).verdict().allowed());
}

TEST_F(ObserveTest, OnlyAdministratorsSeeDenialsAndTheTable) {
  if (getuid() != 0) GTEST_SKIP() << "needs root to be somebody else";
  Start();
  RawPeer peer = Open();
  v1::ClientFrame frame;
  frame.mutable_denials();
  EXPECT_EQ(peer.Call(frame).reason(), v1::REASON_NOT_ADMINISTRATOR);
  frame.mutable_matrix();
  EXPECT_EQ(peer.Call(frame).reason(), v1::REASON_NOT_ADMINISTRATOR);
  frame.mutable_explain()->set_program("sampler");
  frame.mutable_explain()->set_pid(1);
  EXPECT_EQ(peer.Call(frame).reason(), v1::REASON_NOT_ADMINISTRATOR);
  // Of rules about others nothing is told.
  frame.mutable_explain()->clear_pid();
  const v1::ServerFrame own = peer.Call(frame).frame;
  EXPECT_TRUE(own.explain().verdict().allowed());
  EXPECT_EQ(own.explain().consulted_size(), 0);
}

}  // namespace
}  // namespace bpfgrant::broker_test
