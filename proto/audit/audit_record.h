// How a record of the audit trail lies in the journal: message ids, fields, and
// the sentence that people read. Whoever writes and whoever reads has it from
// here; packaging/journal has the text that explains each message id.

#ifndef PROTO_AUDIT_AUDIT_RECORD_H_
#define PROTO_AUDIT_AUDIT_RECORD_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "bpfgrant/v1/audit.pb.h"

namespace bpfgrant {

struct AuditEvent {
  v1::AuditRecord::Event event;
  absl::string_view name;        // "grant-began"
  absl::string_view message_id;  // 32 hex digits, stable for ever (sd-id128)
  int priority;                  // as in syslog(3)
  bool has_who;                  // `about` names a process
};

// Every event, in the order of audit.proto.
absl::Span<const AuditEvent> AuditEvents();
// Of what is none, nullptr.
const AuditEvent* FindAuditEvent(v1::AuditRecord::Event event);
const AuditEvent* FindAuditEvent(absl::string_view name);

// Fields that `bpfgrantctl audit` looks for by value; AuditFields has the rest.
inline constexpr char kAuditProgramField[] = "BPFGRANT_PROGRAM";
inline constexpr char kAuditDigestField[] = "BPFGRANT_DIGEST";
inline constexpr char kAuditGrantField[] = "BPFGRANT_GRANT";
inline constexpr char kAuditUidField[] = "BPFGRANT_UID";
inline constexpr char kAuditUnitField[] = "BPFGRANT_UNIT";
inline constexpr char kAuditRuleField[] = "BPFGRANT_RULE";

// What happened, in one line of printable text.
std::string DescribeAuditRecord(const v1::AuditRecord& record);

// "FIELD=value", as sd_journal_sendv(3) takes them. The record's event must be
// one of AuditEvents; what is not known has no field.
std::vector<std::string> AuditFields(const v1::AuditRecord& record);

// The way back, from the fields that a journal gives; those of others and what
// makes no sense are passed over. Its event is unspecified if that is not told.
v1::AuditRecord ParseAuditFields(absl::Span<const std::string> fields);

}  // namespace bpfgrant

#endif  // PROTO_AUDIT_AUDIT_RECORD_H_
