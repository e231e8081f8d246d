// The audit trail: who got what and who did not, and that one who asks a lot
// drowns nobody else's records.

#include <algorithm>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"
#include "tests/wire/broker_fixture.h"

namespace bpfgrant::broker_test {
namespace {

using Mode = ScriptedLoader::Mode;
using Parts = TestBroker::Parts;
using Record = v1::AuditRecord;

class AuditTest : public WireTest {
 protected:
  std::vector<Record> Records(Record::Event event) {
    return broker().Ask([event](Parts& parts) {
      std::vector<Record> chosen;
      std::copy_if(parts.records.begin(), parts.records.end(),
                   std::back_inserter(chosen),
                   [event](const Record& r) { return r.event() == event; });
      return chosen;
    });
  }
  static BrokerSetup Administrators() {
    BrokerSetup setup;
    setup.administrator_group = Ordinary().gid;
    return setup;
  }
  static void ExpectNames(const v1::GrantInfo& about, const RawPeer& peer) {
    EXPECT_EQ(about.uid(), Ordinary().uid);
    EXPECT_EQ(about.pid(), static_cast<uint32_t>(getpid()));
    EXPECT_EQ(about.session(), peer.hello().session());
  }
  static TestProgram Named(const std::string& name,
                           const std::string& version = "1") {
    TestProgram program;
    program.name = name;
    program.version = version;
    return program;
  }
  static Record Loaded(Record::Event event, const std::string& program) {
    Record record;
    record.set_event(event);
    record.mutable_about()->set_program(program);
    return record;
  }
  // What loading `programs` puts on record: "event program".
  std::vector<std::string> RecordsOfLoading(
      const std::vector<TestProgram>& programs) {
    const daemon::Snapshot snapshot = Catalog(programs, {});
    return broker().Ask([&snapshot](Parts& parts) {
      parts.records.clear();
      parts.audit.CatalogLoaded(Read(snapshot));
      std::vector<std::string> said;
      for (const Record& record : parts.records) {
        said.push_back(Record::Event_Name(record.event()) + " " +
                       record.about().program());
      }
      return said;
    });
  }
  // So many requests that are refused.
  void Flood(size_t count) {
    RawPeer peer = Open();
    for (size_t i = 0; i < count; ++i) {
      EXPECT_EQ(peer.Acquire("nothing").reason(), v1::REASON_DENIED_BY_DEFAULT);
    }
  }
};

// Bit by bit, and whole; by when the next one comes as well.
TEST_F(AuditTest, ALargeCatalogGoesOnRecordBitByBit) {
  constexpr int kMany = 300;
  Start();
  std::vector<TestProgram> first, second;
  for (int i = 0; i < kMany; ++i) {
    first.push_back(Named(absl::StrCat("p", i)));
    second.push_back(Named(absl::StrCat("p", i), i == 7 ? "2" : "1"));
  }
  const size_t at_once = RecordsOfLoading(first).size();
  EXPECT_GT(at_once, 0u);
  EXPECT_LT(at_once, size_t{kMany});
  broker().WaitUntil("all is on record", [](Parts& parts) {
    return parts.records.size() == kMany + 1;
  });
  broker().Ask([&](Parts& parts) {
    parts.records.clear();
    parts.audit.CatalogLoaded(Read(Catalog(second, {})));
    parts.audit.CatalogLoaded(Read(Catalog(first, {})));
    parts.audit.Flush();
    // p7, and that all is read; twice.
    EXPECT_EQ(parts.records.size(), 4u);
  });
}

TEST_F(AuditTest, AGrantFromBeginToEnd) {
  Start();
  RawPeer peer = Open();
  const uint64_t grant = peer.Acquire().frame.acquire().grant();
  peer.Close();
  broker().WaitUntil("the session is over",
                     [](Parts& parts) { return parts.ledger.size() == 0; });
  const auto began = Records(Record::GRANT_BEGAN);
  ASSERT_EQ(began.size(), 1u);
  ExpectNames(began[0].about(), peer);
  EXPECT_EQ(began[0].about().grant(), grant);
  EXPECT_EQ(began[0].about().program(), "sampler");
  EXPECT_EQ(began[0].about().rule(), Allow("sampler", 1).name());
  EXPECT_EQ(began[0].about().delivery(), v1::DELIVERY_PROGRAM);
  EXPECT_FALSE(began[0].about().digest().empty());
  const auto ended = Records(Record::GRANT_ENDED);
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].about().grant(), grant);
  EXPECT_EQ(ended[0].reason(), v1::REASON_SESSION_ENDED);
}

TEST_F(AuditTest, ADenial) {
  Start();
  RawPeer peer = Open();
  EXPECT_EQ(peer.Acquire("nothing").reason(), v1::REASON_DENIED_BY_DEFAULT);
  const auto denied = Records(Record::GRANT_DENIED);
  ASSERT_EQ(denied.size(), 1u);
  ExpectNames(denied[0].about(), peer);
  EXPECT_EQ(denied[0].about().program(), "nothing");
  EXPECT_EQ(denied[0].about().grant(), 0u);
  EXPECT_EQ(denied[0].reason(), v1::REASON_DENIED_BY_DEFAULT);
  EXPECT_FALSE(denied[0].why().empty());
  EXPECT_TRUE(Records(Record::GRANT_BEGAN).empty());
}

TEST_F(AuditTest, WhatTheLoaderRefusesIsADenial) {
  BrokerSetup setup;
  setup.load = Mode::kRefuse;
  Start(setup);
  RawPeer peer = Open();
  EXPECT_EQ(peer.Acquire().reason(), v1::REASON_LOAD_FAILED);
  const auto denied = Records(Record::GRANT_DENIED);
  ASSERT_EQ(denied.size(), 1u);
  EXPECT_EQ(denied[0].reason(), v1::REASON_LOAD_FAILED);
  EXPECT_EQ(denied[0].about().program(), "sampler");
}

TEST_F(AuditTest, WhoRevokes) {
  Start(Administrators());
  RawPeer peer = Open();
  const uint64_t grant = peer.Acquire().frame.acquire().grant();
  v1::ClientFrame frame;
  frame.mutable_revoke()->set_program("sampler");
  EXPECT_EQ(peer.Call(frame).frame.revoke().revoked(), 1u);
  const auto acts = Records(Record::GRANTS_REVOKED);
  ASSERT_EQ(acts.size(), 1u);
  ExpectNames(acts[0].about(), peer);
  EXPECT_EQ(acts[0].count(), 1u);
  EXPECT_NE(acts[0].why().find("sampler"), std::string::npos);
  const auto ended = Records(Record::GRANT_ENDED);
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].about().grant(), grant);
  EXPECT_EQ(ended[0].reason(), v1::REASON_REVOKED);
}

TEST_F(AuditTest, OfACatalogWhatIsNew) {
  Start();
  using Said = std::vector<std::string>;
  TestProgram broken = Named("c");
  broken.available = false;
  EXPECT_EQ(RecordsOfLoading({Named("a"), Named("b"), broken}),
            (Said{"PROGRAM_APPROVED a", "PROGRAM_APPROVED b",
                  "PROGRAM_UNAVAILABLE c", "CATALOG_LOADED "}));
  EXPECT_EQ(RecordsOfLoading({Named("a"), Named("b"), broken}),
            Said{"CATALOG_LOADED "});
  EXPECT_EQ(RecordsOfLoading({Named("a", "2"), Named("c")}),
            (Said{"PROGRAM_APPROVED a", "PROGRAM_APPROVED c",
                  "PROGRAM_WITHDRAWN b", "CATALOG_LOADED "}));
}

TEST_F(AuditTest, AReloadThatWasRejected) {
  BrokerSetup setup = Administrators();
  Start(setup);
  broker().Ask([](Parts& parts) {
    parts.audit.ReloadRejected(
        Refuse(v1::REASON_RELOAD_REJECTED, "x.policy:1:2: no"));
  });
  const auto rejected = Records(Record::RELOAD_REJECTED);
  ASSERT_EQ(rejected.size(), 1u);
  EXPECT_EQ(rejected[0].reason(), v1::REASON_RELOAD_REJECTED);
  EXPECT_NE(rejected[0].why().find("x.policy:1:2"), std::string::npos);
}

TEST_F(AuditTest, AFloodOfDenialsIsToldAsANumber) {
  Start();
  const size_t burst = static_cast<size_t>(kAuditDenialBurst);
  Flood(burst + 200);
  const size_t listed = Records(Record::GRANT_DENIED).size();
  EXPECT_GE(listed, burst);
  // More come to be allowed while it floods.
  EXPECT_LT(listed, burst + 150);
  // What one does wrong does not hide what it does right.
  EXPECT_TRUE(Open().Acquire().frame.has_acquire());
  EXPECT_EQ(Records(Record::GRANT_BEGAN).size(), 1u);
  broker().Ask([](Parts& parts) { parts.audit.Flush(); });
  const auto told = Records(Record::NOT_LISTED);
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].about().uid(), Ordinary().uid);
  EXPECT_EQ(told[0].count(), burst + 200 - listed);
  // Once.
  broker().Ask([](Parts& parts) { parts.audit.Flush(); });
  EXPECT_EQ(Records(Record::NOT_LISTED).size(), 1u);
}

TEST_F(AuditTest, WithoutTheAllowanceAFloodIsListed) {
  StartWithout(&daemon::Mitigations::audit_allowance);
  const size_t count = static_cast<size_t>(kAuditDenialBurst) + 200;
  Flood(count);
  EXPECT_EQ(Records(Record::GRANT_DENIED).size(), count);
}

TEST_F(AuditTest, AUsersFloodTakesNothingFromAnother) {
  Start();
  const auto began = [this](uid_t uid) {
    return broker().Ask([uid](Parts& parts) {
      v1::GrantInfo grant;
      grant.set_uid(uid);
      return parts.audit.GrantBegan(grant);
    });
  };
  const size_t most = static_cast<size_t>(kAuditGrantBurst) / 2;
  for (size_t i = 0; i < most; ++i) EXPECT_TRUE(began(1));
  size_t more = 0;
  while (began(1)) ++more;
  EXPECT_LT(more, most);
  EXPECT_TRUE(began(2));
}

// Who has its beginning on record has its end there; what has not, neither.
TEST_F(AuditTest, BeginAndEndGoTogether) {
  Start();
  broker().Ask([](Parts& parts) {
    v1::GrantInfo grant;
    grant.set_uid(Ordinary().uid);
    while (parts.audit.GrantBegan(grant)) continue;
    parts.records.clear();
  });
  RawPeer peer = Open();
  ASSERT_TRUE(peer.Acquire().frame.has_acquire());
  peer.Close();
  broker().WaitUntil("the session is over",
                     [](Parts& parts) { return parts.ledger.size() == 0; });
  EXPECT_EQ(Records(Record::GRANT_BEGAN).size(),
            Records(Record::GRANT_ENDED).size());
}

}  // namespace
}  // namespace bpfgrant::broker_test
