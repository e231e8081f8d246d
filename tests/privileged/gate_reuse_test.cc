// A revoked program that somebody keeps stays dead for ever, even when its gate
// slot belongs to another by then.

#include "gtest/gtest.h"
#include "tests/harness/process_tree.h"
#include "tests/privileged/client_fixture.h"

namespace bpfgrant::test {
namespace {

// Slots are handed out last in, first out, so the revoked one is taken again by
// the next instance that is loaded; that one is granted after those that were
// ready before it, four of them.
constexpr int kGrants = 24;

class GateReuseTest : public ClientTest {
 protected:
  // Waits until the pool has made up for a grant. `resting` slots are used with
  // a full pool, so that with one more the last one given back is among them.
  void WaitUntilRefilled(uint32_t resting) {
    EXPECT_TRUE(WaitUntil(
        [&] { return Status().gate_slots_used() == resting + 1; }, kPatience));
  }

  // Has a revoked sampler on socket 0 and takes and gives back other grants.
  // After how many of them the old program ran again; 0: never.
  int GrantsUntilRevived() {
    const uint32_t resting = Rest().gate_slots_used;
    Nobody client;
    Connect(client);
    client.Do("udp");
    const Acquired old = client.Acquire("packet_sampler program");
    client.Do("attach 0 0");
    const SamplerProbe probe(old);
    EXPECT_EQ(client.Ask("traffic 0 10 0"), "ok 10 10");
    WaitUntilRefilled(resting);
    EXPECT_EQ(RevokeGrant(old.grant), 1u);
    EXPECT_EQ(client.Ask("traffic 0 10 0"), "ok 10 0");
    for (int i = 1; i <= kGrants; ++i) {
      const Acquired next = client.Acquire("packet_sampler program");
      WaitUntilRefilled(resting);
      const bool sampled = client.Ask("traffic 0 10 0") != "ok 10 0";
      EXPECT_EQ(sampled, probe.Runs());
      if (sampled) return i;
      EXPECT_EQ(client.Ask("release " + next.index), "ok");
    }
    return 0;
  }
};

TEST_F(GateReuseTest, TheOldProgramStaysDead) {
  ASSERT_NO_FATAL_FAILURE(Start());
  EXPECT_EQ(GrantsUntilRevived(), 0);
}

TEST_F(GateReuseTest, TheOldProgramComesBackWithoutNonces) {
  ASSERT_NO_FATAL_FAILURE(StartWithout({"gate_nonce"}));
  EXPECT_GT(GrantsUntilRevived(), 0);
}

}  // namespace
}  // namespace bpfgrant::test
