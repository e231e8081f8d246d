// The audit trail in a real journal, and `bpfgrantctl audit` that reads it
// back.

#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "bpfgrant/v1/audit.pb.h"
#include "gtest/gtest.h"
#include "proto/audit/audit_record.h"
#include "tests/e2e/bpfgrantctl_fixture.h"
#include "tests/e2e/private_journal.h"

namespace bpfgrant::test {
namespace {

using Record = v1::AuditRecord;

constexpr std::chrono::milliseconds kPatience{30'000};

class JournalTest : public BpfgrantctlTest {
 protected:
  void SetUp() override {
    DaemonTest::SetUp();
    if (IsSkipped()) return;
    const absl::Status started = journal_.Start();
    ASSERT_TRUE(started.ok()) << started;
    DaemonOptions options;
    options.policy = kPolicy;
    options.programs = kTwoPrograms;
    const InUnit unit(unit_);
    ASSERT_TRUE(StartDaemon(options));
  }
  void TearDown() override {
    BpfgrantctlTest::TearDown();
    InUnit::RemoveUnit(unit_);
  }

  Words AuditOf(Words words) {
    words.insert(words.begin(), {"audit", "--written-by", unit_});
    return words;
  }
  std::vector<Record> Read(Words words) {
    words.push_back("--json");
    const Outcome outcome =
        RunUnprivileged(Tool(), AuditOf(std::move(words)), AsRoot());
    EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
    std::vector<Record> records;
    for (const std::string& line : LinesOf(outcome.output)) {
      records.push_back(FromJson<Record>(line));
    }
    return records;
  }
  // Reads until there are `count` of them: the journal is given records, and
  // writes them when it can.
  std::vector<Record> Await(size_t count, const Words& words) {
    const auto until = std::chrono::steady_clock::now() + kPatience;
    std::vector<Record> records = Read(words);
    while (records.size() < count && std::chrono::steady_clock::now() < until) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      records = Read(words);
    }
    EXPECT_EQ(records.size(), count) << absl::StrJoin(words, " ");
    records.resize(count);
    return records;
  }
  // One that began, and one that was denied, and its end.
  uint64_t MakeRecords() {
    Connection connection = Connect();
    const uint64_t grant = Acquire(connection).id();
    Nobody({"explain", "packet_sampler"});
    EXPECT_FALSE(connection
                     .Acquire({.program = "no_such_program",
                               .interface = "no_such_program/1"})
                     .ok());
    return grant;
  }
  const std::string& unit() const { return unit_; }

 private:
  const std::string unit_ = absl::StrCat("bpfgrantd-", getpid(), ".service");
  PrivateJournal journal_;
};

// journald's own words, for what nobody but it can say.
std::string Journalctl(const Words& words) {
  const Outcome outcome =
      RunUnprivileged("/usr/bin/journalctl", words, AsRoot());
  EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
  return outcome.output;
}

TEST_F(JournalTest, FromApprovalToEnd) {
  const auto approved = Await(2, {"--event", "program-approved"});
  EXPECT_EQ(approved[0].about().program(), "packet_sampler");
  EXPECT_EQ(approved[0].about().digest().size(), 64u);
  EXPECT_TRUE(absl::EndsWith(approved[0].file(), "packet_sampler.manifest"));

  const uint64_t grant = MakeRecords();
  const auto began = Await(1, {"--event", "grant-began"});
  EXPECT_EQ(began[0].about().grant(), grant);
  EXPECT_EQ(began[0].about().uid(), 0u);
  EXPECT_EQ(began[0].about().pid(), static_cast<uint32_t>(getpid()));
  EXPECT_EQ(began[0].about().rule(), "root");
  EXPECT_EQ(began[0].about().digest(), approved[0].about().digest());
  EXPECT_EQ(began[0].about().program_id_size(), 1);
  EXPECT_GE(began[0].about().map_id_size(), 1);
  EXPECT_GT(began[0].at_unix_us(), 0);
  const auto denied = Await(1, {"--event", "grant-denied"});
  EXPECT_EQ(denied[0].about().program(), "no_such_program");
  EXPECT_EQ(denied[0].reason(), v1::REASON_UNKNOWN_PROGRAM);
  const auto ended = Await(1, {"--event", "grant-ended"});
  EXPECT_EQ(ended[0].about().grant(), grant);

  EXPECT_EQ(Root({"status", "--json"}).exit_code, 0);
  EXPECT_TRUE(absl::StrContains(Root({"status", "--json"}).output,
                                "\"audit\": \"journal\""));
}

TEST_F(JournalTest, IsSearched) {
  const uint64_t grant = MakeRecords();
  Await(1, {"--event", "grant-ended"});
  const std::string id = absl::StrCat(grant);
  EXPECT_EQ(Read({"--grant", id}).size(), 2u);
  EXPECT_EQ(Read({"--grant", id, "--event", "grant-ended"}).size(), 1u);
  EXPECT_EQ(Read({"--grant", id, "--lines", "1"}).size(), 1u);
  EXPECT_EQ(Read({"--grant", id, "--lines", "1"})[0].event(),
            Record::GRANT_ENDED);
  EXPECT_EQ(Read({"--grant", "4000000000"}).size(), 0u);
  EXPECT_EQ(Read({"--user", "root", "--event", "grant-began"}).size(), 1u);
  EXPECT_EQ(Read({"--user", "65534"}).size(), 0u);
  EXPECT_EQ(Read({"--rule", "root"}).size(), 2u);
  EXPECT_EQ(Read({"--program", "no_such_program"}).size(), 1u);
  EXPECT_EQ(Read({"--program", "no_such_program", "--program", "packet_sampler",
                  "--event", "grant-denied", "--event", "grant-began"})
                .size(),
            2u);
  EXPECT_EQ(Read({"--since", "1h"}).size(), Read({}).size());
  EXPECT_EQ(Read({"--since", "1h", "--lines", "2"}).size(), 2u);
  EXPECT_EQ(Read({"--until", "1h"}).size(), 0u);
  EXPECT_EQ(Read({"--since", "2038-01-01"}).size(), 0u);
  EXPECT_EQ(Read({"--until", "2038-01-01 00:00"}).size(), Read({}).size());
}

TEST_F(JournalTest, IsReadByPeople) {
  const uint64_t grant = MakeRecords();
  Await(1, {"--event", "grant-ended"});
  const Outcome outcome = RunUnprivileged(
      Tool(), AuditOf({"--grant", absl::StrCat(grant)}), AsRoot());
  ASSERT_EQ(LinesOf(outcome.output).size(), 2u) << outcome.output;
  EXPECT_TRUE(absl::StrContains(
      outcome.output,
      absl::StrCat("grant ", grant, " of 'packet_sampler' to uid 0, pid ",
                   getpid())))
      << outcome.output;
}

TEST_F(JournalTest, WrongUsage) {
  for (const Words& words :
       {Words{"--event", "sunshine"}, Words{"--since", "yesterday-ish"},
        Words{"--user", "no-such-user"}, Words{"--lines", "-1"}}) {
    const Outcome outcome = RunUnprivileged(Tool(), AuditOf(words), AsRoot());
    EXPECT_EQ(outcome.exit_code, kUsage) << absl::StrJoin(words, " ");
    EXPECT_FALSE(outcome.errors.empty());
  }
}

TEST_F(JournalTest, IsNotEverybodysToRead) {
  Await(2, {"--event", "program-approved"});
  const Outcome outcome = RunUnprivileged(Tool(), AuditOf({}));
  EXPECT_EQ(outcome.exit_code, kUnreachable) << outcome.output;
  EXPECT_EQ(outcome.output, "");
  EXPECT_TRUE(absl::StrContains(outcome.errors, "systemd-journal"))
      << outcome.errors;
}

// Whoever can write to the journal can write this; what it cannot write is who
// it is.
TEST_F(JournalTest, AForgedRecordDoesNotCount) {
  Record record;
  record.set_event(Record::GRANT_BEGAN);
  record.mutable_about()->set_program("forged");
  const std::string fields = absl::StrJoin(AuditFields(record), "\n");
  const Outcome sent = RunUnprivileged(
      "/bin/sh", {"-c", absl::StrCat("printf '%s\\n' \"", fields,
                                     "\" | logger --journald")});
  ASSERT_EQ(sent.exit_code, 0) << sent.errors;
  // It is there for who believes all that is written...
  const std::string match = absl::StrCat(
      "MESSAGE_ID=", FindAuditEvent(Record::GRANT_BEGAN)->message_id);
  const auto until = std::chrono::steady_clock::now() + kPatience;
  std::string all;
  while (!absl::StrContains(all, "'forged'") &&
         std::chrono::steady_clock::now() < until) {
    all = Journalctl({"--no-pager", "--output", "cat", match});
  }
  EXPECT_TRUE(absl::StrContains(all, "'forged'"));
  // ...and not in the audit trail.
  EXPECT_EQ(Read({"--program", "forged"}).size(), 0u);
}

TEST_F(JournalTest, IsFollowed) {
  Await(2, {"--event", "program-approved"});
  auto follower = UnprivilegedProcess::Spawn(
      Tool(), AuditOf({"--follow", "--lines", "1", "--json"}), AsRoot());
  ASSERT_TRUE(follower.ok()) << follower.status();
  // The last of what there was, and then what happens.
  const auto first = follower->WaitForLine("{", kPatience);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(FromJson<Record>(*first).event(), Record::CATALOG_LOADED);
  const uint64_t grant = MakeRecords();
  const auto next = follower->WaitForLine("{", kPatience);
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_EQ(FromJson<Record>(*next).event(), Record::GRANT_BEGAN);
  EXPECT_EQ(FromJson<Record>(*next).about().grant(), grant);
}

TEST_F(JournalTest, AStopIsOnRecord) {
  Connection connection = Connect();
  const Grant grant = Acquire(connection);
  ASSERT_TRUE(daemon().Stop().ok());
  const auto ended = Await(1, {"--event", "grant-ended"});
  EXPECT_EQ(ended[0].about().grant(), grant.id());
  EXPECT_EQ(ended[0].reason(), v1::REASON_DAEMON_STOPPED);
}

}  // namespace
}  // namespace bpfgrant::test
