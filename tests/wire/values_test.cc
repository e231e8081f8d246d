// Values of parameters that instances are loaded for: whose they are, how many
// are kept ready, and that they are those of the frame.

#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "proto/wire/limits.h"
#include "tests/wire/broker_fixture.h"

namespace bpfgrant::broker_test {
namespace {

using Mode = ScriptedLoader::Mode;
using Parts = TestBroker::Parts;

class ValuesTest : public WireTest {
 protected:
  // `sampler` with the constant `n`, by default 1.
  static BrokerSetup WithParameter() {
    BrokerSetup setup;
    v1::Parameter& n =
        *setup.catalog.mutable_entry(0)->mutable_description()->add_parameter();
    n.set_name("n");
    n.mutable_integer()->set_max(1000);
    n.set_constant("n");
    n.mutable_default_()->set_integer(1);
    return setup;
  }
  static v1::ClientFrame Frame(int64_t n) {
    v1::ClientFrame frame = AcquireFrame();
    v1::ParameterValue& value = *frame.mutable_acquire()->add_parameter();
    value.set_name("n");
    value.set_integer(n);
    return frame;
  }
  // What the loader was asked to load with `n`, in order.
  std::vector<int64_t> Loaded() {
    return broker().Ask([](Parts& parts) {
      std::vector<int64_t> values;
      for (const daemon::LoaderRequest& request : parts.scripted.requests()) {
        for (const v1::ParameterValue& value : request.load().parameter()) {
          values.push_back(value.integer());
        }
      }
      return values;
    });
  }
  // The same program, approved anew for values up to 100.
  static daemon::Snapshot WithLess(daemon::Snapshot catalog) {
    daemon::CatalogEntry& entry = *catalog.mutable_entry(0);
    entry.set_identity(entry.identity() + ", again");
    entry.mutable_description()
        ->mutable_parameter(0)
        ->mutable_integer()
        ->set_max(100);
    return catalog;
  }
  void SetMode(Mode mode) {
    broker().Ask([mode](Parts& parts) { parts.scripted.load = mode; });
  }
  // Another user asks for many values after `peer` had asked for one: whether
  // that one is still ready.
  bool IsReadyAfterAFlood(RawPeer& peer, RawPeer& other) {
    EXPECT_TRUE(peer.Call(Frame(9)).frame.has_acquire());
    for (int64_t n = 100; n < 110; ++n) {
      EXPECT_TRUE(other.Call(Frame(n)).frame.has_acquire());
    }
    broker().Settle();
    SetMode(Mode::kRefuse);
    return peer.Call(Frame(9)).frame.has_acquire();
  }
};

TEST_F(ValuesTest, DefaultsComeFromThePool) {
  Start(WithParameter());
  broker().Settle();
  SetMode(Mode::kRefuse);
  RawPeer peer = Open();
  EXPECT_TRUE(peer.Acquire().frame.has_acquire());
  EXPECT_TRUE(peer.Call(Frame(1)).frame.has_acquire());
  EXPECT_EQ(peer.Call(Frame(2)).reason(), v1::REASON_LOAD_FAILED);
}

TEST_F(ValuesTest, OthersAreLoadedAndThenKeptReady) {
  Start(WithParameter());
  RawPeer peer = Open();
  EXPECT_TRUE(peer.Call(Frame(2)).frame.has_acquire());
  broker().Settle();
  EXPECT_EQ(Loaded(), (std::vector<int64_t>{2, 2}));
  SetMode(Mode::kRefuse);
  EXPECT_TRUE(peer.Call(Frame(2)).frame.has_acquire());
}

// What a frame has room for, the one to the loader may not have.
TEST_F(ValuesTest, NothingBesideAValueIsPassedOn) {
  Start(WithParameter());
  RawPeer peer = Open();
  v1::ClientFrame frame = Frame(2);
  v1::ParameterValue& value = *frame.mutable_acquire()->mutable_parameter(0);
  value.GetReflection()->MutableUnknownFields(&value)->AddLengthDelimited(
      99, std::string(kMaxFrameBytes - 1024, 'x'));
  EXPECT_TRUE(peer.Call(frame).frame.has_acquire());
  broker().Ask([](Parts& parts) {
    for (const daemon::LoaderRequest& request : parts.scripted.requests()) {
      EXPECT_LT(request.ByteSizeLong(), 1024u);
    }
  });
}

TEST_F(ValuesTest, AreOnRecord) {
  Start(WithParameter());
  RawPeer peer = Open();
  EXPECT_TRUE(peer.Call(Frame(2)).frame.has_acquire());
  const v1::AuditRecord began =
      broker().Ask([](Parts& parts) { return parts.records.back(); });
  ASSERT_EQ(began.event(), v1::AuditRecord::GRANT_BEGAN);
  ASSERT_EQ(began.about().parameter_size(), 1);
  EXPECT_EQ(began.about().parameter(0), "n=2");
}

TEST_F(ValuesTest, OnlyTheLatestFewAreKept) {
  Start(WithParameter());
  RawPeer peer = Open();
  for (int64_t n = 2; n < 3 + static_cast<int64_t>(kKeptValuesPerUser); ++n) {
    EXPECT_TRUE(peer.Call(Frame(n)).frame.has_acquire());
  }
  broker().Settle();
  // Those kept, and those of the pool.
  EXPECT_EQ(broker().Ask([](Parts& parts) {
    return parts.gates.used() - static_cast<uint32_t>(parts.ledger.size()) -
           static_cast<uint32_t>(parts.pool.Ready("sampler")) -
           static_cast<uint32_t>(parts.pool.Ready("tap"));
  }),
            kKeptValuesPerUser);
  SetMode(Mode::kRefuse);
  EXPECT_TRUE(peer.Call(Frame(3)).frame.has_acquire());
  EXPECT_EQ(peer.Call(Frame(2)).reason(), v1::REASON_LOAD_FAILED);
}

TEST_F(ValuesTest, AFloodOfValuesEvictsNoOtherUsers) {
  if (getuid() != 0) GTEST_SKIP() << "privilege: another user";
  Start(WithParameter());
  RawPeer peer = Open(User{65532, 65532});
  RawPeer other = Open(User{65533, 65533});
  EXPECT_TRUE(IsReadyAfterAFlood(peer, other));
}

TEST_F(ValuesTest, AFloodOfValuesEvictsOthers_WithoutMitigation) {
  if (getuid() != 0) GTEST_SKIP() << "privilege: another user";
  StartWithout(&daemon::Mitigations::values_by_user, WithParameter());
  RawPeer peer = Open(User{65532, 65532});
  RawPeer other = Open(User{65533, 65533});
  EXPECT_FALSE(IsReadyAfterAFlood(peer, other));
}

// What the client does with its memory after it has sent a frame is its own
// business: the values are a copy from the first look to the load.
TEST_F(ValuesTest, AreThoseOfTheFrame) {
  BrokerSetup setup = WithParameter();
  setup.pool.bytes = 0;
  Start(setup);
  SetMode(Mode::kSilent);
  RawPeer peer = Open();
  v1::ClientFrame frame = Frame(2);
  frame.set_request(7);
  std::string bytes = frame.SerializeAsString();
  ASSERT_EQ(peer.Send(std::string_view(bytes)), 0);
  broker().WaitUntil("loading",
                     [](Parts& parts) { return parts.scripted.held() > 0; });
  bytes.assign(bytes.size(), '\xff');
  EXPECT_EQ(Loaded(), std::vector<int64_t>{2});
  broker().Ask([](Parts& parts) { parts.scripted.AnswerHeld(); });
}

// Though one with that value is ready.
TEST_F(ValuesTest, TooLateForOneThatIsAllowedNoMore) {
  BrokerSetup setup = WithParameter();
  const daemon::Snapshot less = WithLess(setup.catalog);
  Start(std::move(setup));
  RawPeer peer = Open();
  EXPECT_TRUE(peer.Call(Frame(900)).frame.has_acquire());
  broker().Settle();
  broker().Replace(less);
  EXPECT_EQ(peer.Call(Frame(900)).reason(), v1::REASON_PARAMETER_RANGE);
  EXPECT_TRUE(peer.Call(Frame(90)).frame.has_acquire());
  daemon::Snapshot none = less;
  none.mutable_entry(0)->mutable_description()->clear_parameter();
  broker().Replace(none);
  EXPECT_EQ(peer.Call(Frame(90)).reason(), v1::REASON_PARAMETER_UNKNOWN);
}

TEST_F(ValuesTest, TooLateForOneThatIsBeingLoaded) {
  BrokerSetup setup = WithParameter();
  setup.pool.bytes = 0;
  const daemon::Snapshot less = WithLess(setup.catalog);
  Start(std::move(setup));
  SetMode(Mode::kSilent);
  {
    RawPeer peer = Open();
    ASSERT_EQ(peer.Send(Frame(900)), 0);
    broker().WaitUntil("loading",
                       [](Parts& parts) { return parts.scripted.held() > 0; });
    broker().Replace(less);
    EXPECT_EQ(peer.Receive().reason(), v1::REASON_PROGRAM_UNAVAILABLE);
    broker().Ask([](Parts& parts) { parts.scripted.AnswerHeld(); });
  }
  ExpectNothingLeft();
}

}  // namespace
}  // namespace bpfgrant::broker_test
