#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bpfgrant/v1/audit.pb.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"
#include "proto/audit/audit_record.h"

namespace bpfgrant {
namespace {

using Record = v1::AuditRecord;

Record WithEverything(Record::Event event) {
  Record record;
  record.set_event(event);
  v1::GrantInfo& about = *record.mutable_about();
  about.set_grant(7);
  about.set_program("sampler");
  about.set_interface("sampler/1");
  about.set_digest("ab12");
  about.set_session(3);
  about.set_uid(1000);
  about.set_pid(42);
  about.set_unit("nginx.service");
  about.set_label("system_u:object_r:x");
  about.set_variant("modern");
  about.set_rule("operators");
  about.set_delivery(v1::DELIVERY_RING);
  about.add_program_id(11);
  about.add_program_id(12);
  about.add_map_id(13);
  about.add_parameter("rate=5");
  about.add_parameter("mode=fast");
  record.set_reason(v1::REASON_DENIED_BY_RULE);
  record.set_why("because");
  record.set_file("/etc/x.manifest");
  record.set_signed_by("vendor, distribution");
  record.set_count(9);
  return record;
}

bool Has(const std::vector<std::string>& fields, const std::string& field) {
  return std::find(fields.begin(), fields.end(), field) != fields.end();
}

TEST(AuditFieldsTest, ComeBackAsTheyWere) {
  for (const AuditEvent& event : AuditEvents()) {
    const Record record = WithEverything(event.event);
    const Record read = ParseAuditFields(AuditFields(record));
    EXPECT_TRUE(
        google::protobuf::util::MessageDifferencer::Equals(read, record))
        << read.DebugString();
  }
}

TEST(AuditFieldsTest, EachEventIsInTheTableOnceWithAnIdOfItsOwn) {
  std::set<std::string> ids, names;
  for (int number = 1; number < Record::Event_ARRAYSIZE; ++number) {
    const auto* event = FindAuditEvent(static_cast<Record::Event>(number));
    ASSERT_NE(event, nullptr) << number;
    EXPECT_EQ(event->message_id.size(), 32u);
    EXPECT_TRUE(ids.emplace(event->message_id).second) << number;
    EXPECT_TRUE(names.emplace(event->name).second) << number;
    EXPECT_EQ(FindAuditEvent(event->name), event);
  }
  EXPECT_EQ(AuditEvents().size(), ids.size());
  EXPECT_EQ(FindAuditEvent(Record::EVENT_UNSPECIFIED), nullptr);
}

TEST(AuditFieldsTest, RootIsNotNobody) {
  Record record;
  record.set_event(Record::GRANT_DENIED);
  EXPECT_TRUE(Has(AuditFields(record), "BPFGRANT_UID=0"));
  record.set_event(Record::PROGRAM_APPROVED);
  EXPECT_FALSE(Has(AuditFields(record), "BPFGRANT_UID=0"));
}

// A client may ask for a program of any name, and run in a unit of any.
TEST(AuditFieldsTest, ASentenceIsOneLineOfPrintableText) {
  for (const AuditEvent& event : AuditEvents()) {
    Record record = WithEverything(event.event);
    record.mutable_about()->set_program("a\nBPFGRANT_UID=0\x1b[2J");
    record.mutable_about()->set_unit("b\nPRIORITY=0");
    record.mutable_about()->set_rule("c\n");
    record.set_why("d\n\x07");
    const std::string sentence = DescribeAuditRecord(record);
    EXPECT_FALSE(sentence.empty());
    for (const char c : sentence) {
      EXPECT_GE(static_cast<unsigned char>(c), ' ') << sentence;
    }
    // A field's value may have lines: it is told with its length.
    EXPECT_EQ(ParseAuditFields(AuditFields(record)).about().uid(), 1000u);
  }
}

TEST(AuditFieldsTest, WhatMakesNoSenseIsPassedOver) {
  const Record read = ParseAuditFields(
      {"BPFGRANT_EVENT=nothing", "BPFGRANT_UID=x", "BPFGRANT_GRANT=-1", "",
       "BPFGRANT_REASON=sunshine", "_PID=4", "BPFGRANT_DELIVERY=", "=",
       "BPFGRANT_PROGRAM"});
  EXPECT_EQ(read.event(), Record::EVENT_UNSPECIFIED);
  EXPECT_EQ(read.about().uid(), 0u);
  EXPECT_EQ(read.about().grant(), 0u);
  EXPECT_EQ(read.reason(), v1::REASON_UNSPECIFIED);
}

// What journalctl explains: each message id, and only with fields that exist.
TEST(AuditFieldsTest, EachEventIsExplainedInTheJournalsCatalog) {
  std::ifstream file(JOURNAL_CATALOG);
  std::stringstream content;
  content << file.rdbuf();
  const std::string catalog = content.str();
  size_t entries = 0;
  for (size_t at = 0; (at = catalog.find("\n-- ", at)) != std::string::npos;
       ++at) {
    ++entries;
  }
  EXPECT_EQ(entries, AuditEvents().size());
  std::string known;
  for (const AuditEvent& event : AuditEvents()) {
    EXPECT_NE(catalog.find(absl::StrCat("\n-- ", event.message_id, "\n")),
              std::string::npos)
        << event.name;
    for (const std::string& field : AuditFields(WithEverything(event.event))) {
      absl::StrAppend(&known, "@", field.substr(0, field.find('=')), "@");
    }
  }
  for (size_t at = 0; (at = catalog.find("@BPF", at)) != std::string::npos;) {
    const size_t end = catalog.find('@', at + 1);
    const std::string field = catalog.substr(at, end + 1 - at);
    EXPECT_NE(known.find(field), std::string::npos) << field;
    at = end + 1;
  }
}

}  // namespace
}  // namespace bpfgrant
