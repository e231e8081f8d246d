// What an administrator takes back is gone, wherever the client has put it.

#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/harness/skip.h"
#include "tests/privileged/client_fixture.h"
#include "tests/privileged/private_bpffs.h"

namespace bpfgrant::test {
namespace {

class RevokeTest : public ClientTest {
 protected:
  void SetUp() override {
    BPFGRANT_REQUIRE_CAPABILITIES(CAP_SYS_ADMIN);
    ClientTest::SetUp();
  }

  // Revokes everything that `change` of the request names.
  template <typename Change>
  uint32_t RevokeBy(Change change) {
    v1::RevokeRequest request;
    change(request);
    return Revoke(request);
  }
};

// The client keeps its program in every place that it can reach: its own fd, an
// attachment, a pin, a fork, and what the fork attaches from the pin.
class KeptEverywhere {
 public:
  KeptEverywhere(Nobody& client, const std::string& folder)
      : client_(client), pin_(folder + "/program") {
    client_.Do("udp");
    client_.Do("udp");
    acquired_ = client_.Acquire("packet_sampler program");
    client_.Do("attach 0 0");
    client_.Do(absl::StrCat("pin 0 program ", pin_));
    client_.Do(absl::StrCat("pin 0 samples ", folder, "/samples"));
    client_.Do("fork");
    client_.Do(absl::StrCat("child attach-pin ", pin_, " 1"));
  }

  const Acquired& acquired() const { return acquired_; }
  // Of 20 packets on the two sockets, how many are sampled; all must arrive.
  std::string Traffic() {
    return client_.Ask("traffic 0 10 0") + ", " +
           client_.Ask("child traffic 1 10 0");
  }
  std::string AttachAgain() {
    return client_.Ask(absl::StrCat("child attach-pin ", pin_, " 0")) + ", " +
           client_.Ask("attach 0 1");
  }

 private:
  Nobody& client_;
  const std::string pin_;
  Acquired acquired_;
};

TEST_F(RevokeTest, PinsAndForksAreDead) {
  const PrivateBpffs bpffs;
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  Connect(client);
  KeptEverywhere kept(client, bpffs.path());
  EXPECT_EQ(kept.Traffic(), "ok 10 10, ok 10 10");
  const SamplerProbe probe(kept.acquired());
  EXPECT_TRUE(probe.Runs());
  EXPECT_EQ(RevokeGrant(kept.acquired().grant), 1u);
  EXPECT_FALSE(probe.Runs());
  EXPECT_EQ(kept.Traffic(), "ok 10 0, ok 10 0");
  // The kernel still lets the holder attach it: to no effect.
  EXPECT_EQ(kept.AttachAgain(), "ok, ok");
  EXPECT_EQ(kept.Traffic(), "ok 10 0, ok 10 0");
}

TEST_F(RevokeTest, PinsAndForksLiveOnWithoutTheGate) {
  const PrivateBpffs bpffs;
  ASSERT_NO_FATAL_FAILURE(StartWithout({"gate_closes"}));
  Nobody client;
  Connect(client);
  KeptEverywhere kept(client, bpffs.path());
  const SamplerProbe probe(kept.acquired());
  EXPECT_EQ(RevokeGrant(kept.acquired().grant), 1u);
  EXPECT_TRUE(probe.Runs());
  EXPECT_EQ(kept.Traffic(), "ok 10 10, ok 10 10");
}

TEST_F(RevokeTest, WhatTheManifestSaysBecomesOfTheTraffic) {
  ASSERT_NO_FATAL_FAILURE(Start());
  ASSERT_NO_FATAL_FAILURE(AddDroppingSampler("drop_sampler"));
  Nobody client;
  Connect(client);
  client.Do("udp");
  const Acquired drops = client.Acquire("drop_sampler program");
  client.Do("attach 0 0");
  EXPECT_EQ(client.Ask("traffic 0 10 0"), "ok 10 10");
  EXPECT_EQ(RevokeGrant(drops.grant), 1u);
  EXPECT_EQ(client.Ask("traffic 0 10 0"), "ok 0 0");
}

TEST_F(RevokeTest, ByWhateverNamesIt) {
  ASSERT_NO_FATAL_FAILURE(Start());
  ASSERT_NO_FATAL_FAILURE(AddDroppingSampler("drop_sampler"));
  Nobody client;
  Connect(client);
  const auto take = [&] {
    client.Acquire("packet_sampler program");
    client.Acquire("packet_sampler program");
    client.Acquire("drop_sampler program");
    client.Acquire("reuseport_steer program");
  };
  const auto digest = administrator().Describe("packet_sampler");
  ASSERT_TRUE(digest.ok()) << digest.status();
  take();
  EXPECT_EQ(RevokeBy([](auto& r) { r.set_program("packet_sampler"); }), 2u);
  EXPECT_EQ(Status().grants(), 2u);
  EXPECT_EQ(RevokeBy([](auto& r) { r.set_program("packet_sampler"); }), 0u);
  // Of one object, whatever name it was approved under.
  EXPECT_EQ(RevokeBy([&](auto& r) { r.set_digest(digest->digest()); }), 1u);
  EXPECT_EQ(RevokeBy([](auto& r) { r.set_uid(1234); }), 0u);
  EXPECT_EQ(RevokeBy([](auto& r) { r.set_uid(kNobody); }), 1u);
  take();
  EXPECT_EQ(RevokeBy([](auto& r) { r.set_all(true); }), 4u);
  EXPECT_EQ(Status().grants(), 0u);
}

// A grant outside any unit is not of "the unit without a name".
TEST_F(RevokeTest, ByUnitMeansThatUnitAlone) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  Connect(client);
  client.Acquire("packet_sampler program");
  EXPECT_EQ(RevokeBy([](auto& r) { r.set_unit("no-such.service"); }), 0u);
  v1::RevokeRequest request;
  request.set_unit("");
  EXPECT_FALSE(administrator().Revoke(request).ok());
  EXPECT_FALSE(administrator().Revoke(v1::RevokeRequest()).ok());
  request.set_grant(4711);
  EXPECT_FALSE(administrator().Revoke(request).ok());
  EXPECT_EQ(Status().grants(), 1u);
}

TEST_F(RevokeTest, TheClientIsToldWhy) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  Connect(client);
  const Acquired acquired = client.Acquire("packet_sampler program");
  EXPECT_EQ(client.Ask("ended 0"), "ok live");
  EXPECT_EQ(RevokeGrant(acquired.grant), 1u);
  EXPECT_EQ(client.Ask("event 20000"),
            absl::StrCat("ok TYPE_GRANT_ENDED ", acquired.grant, " revoked"));
  EXPECT_EQ(client.Ask("ended 0"), "ok revoked");
  EXPECT_EQ(client.Ask("release 0"), "refused unknown-grant");
}

// A run that began before is not stopped: where it holds up the machine's
// grace periods, Revoke says that it goes on instead of waiting for it.
TEST_F(RevokeTest, ARunThatGoesOnIsNamed) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const bool held_up =
      Status().kernel().preemptible() && sysconf(_SC_NPROCESSORS_ONLN) > 1;
  Nobody client;
  Connect(client);
  const Acquired acquired = client.Acquire("packet_sampler program");
  const SamplerProbe probe(acquired);
  // Far longer than Revoke waits, however badly its time was guessed.
  BeginLongRun(client, std::chrono::seconds(8));
  v1::RevokeRequest request;
  request.set_grant(acquired.grant);
  const auto reply = administrator().Revoke(request);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->revoked(), 1u);
  EXPECT_EQ(reply->running(), held_up);
  // What is under way runs to its end, but through a closed gate.
  EXPECT_FALSE(probe.Runs());
  client.Answer(std::chrono::minutes(1));
}

TEST_F(RevokeTest, IsForAdministrators) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  Connect(client);
  client.Acquire("packet_sampler program");
  EXPECT_EQ(client.Ask("revoke-all"), "refused not-administrator");
  EXPECT_EQ(client.Ask("reload"), "refused not-administrator");
  EXPECT_EQ(Status().grants(), 1u);
}

TEST_F(RevokeTest, ReleaseClosesTheGate) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  Connect(client);
  client.Do("udp");
  const Acquired acquired = client.Acquire("packet_sampler program");
  client.Do("attach 0 0");
  const SamplerProbe probe(acquired);
  EXPECT_EQ(client.Ask("traffic 0 10 0"), "ok 10 10");
  EXPECT_EQ(client.Ask("release 0"), "ok");
  EXPECT_FALSE(probe.Runs());
  // The attachment is still there, and lets everything pass.
  EXPECT_EQ(client.Ask("traffic 0 10 0"), "ok 10 0");
  EXPECT_EQ(client.Ask("release 0"), "refused unknown-grant");
  EXPECT_EQ(client.Ask("attach 0 0"), "failed: no handle program");
  EXPECT_EQ(RevokeBy([](auto& r) { r.set_all(true); }), 0u);
}

TEST_F(RevokeTest, ReleaseOpensNothingToAFork) {
  ASSERT_NO_FATAL_FAILURE(Start());
  Nobody client;
  Connect(client);
  client.Do("udp");
  client.Acquire("packet_sampler program");
  client.Do("fork");
  client.Do("child attach 0 0");
  EXPECT_EQ(client.Ask("child traffic 0 10 0"), "ok 10 10");
  EXPECT_EQ(client.Ask("release 0"), "ok");
  EXPECT_EQ(client.Ask("child traffic 0 10 0"), "ok 10 0");
}

}  // namespace
}  // namespace bpfgrant::test
