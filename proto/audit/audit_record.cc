#include "proto/audit/audit_record.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant {
namespace {

using Record = v1::AuditRecord;

constexpr int kWarning = 4;  // syslog(3)
constexpr int kNotice = 5;
constexpr int kInformational = 6;

constexpr AuditEvent kEvents[] = {
    {Record::PROGRAM_APPROVED, "program-approved",
     "cd7ca979b9ac4e358a0e9bdf634ffc69", kNotice, false},
    {Record::PROGRAM_UNAVAILABLE, "program-unavailable",
     "0214171ab6d24011bed0b8f7e6d6c5fb", kWarning, false},
    {Record::PROGRAM_WITHDRAWN, "program-withdrawn",
     "e10211d60e2d4e758ec3924240ea2ba3", kNotice, false},
    {Record::CATALOG_LOADED, "catalog-loaded",
     "f7f8d98c27f846c3a4b4146b17abba0d", kNotice, false},
    {Record::RELOAD_REJECTED, "reload-rejected",
     "34edd872d12645f3b5b6fdcffed4e03c", kWarning, false},
    {Record::GRANT_BEGAN, "grant-began", "943904eb972c4bf7af1f40ec7b3856c2",
     kInformational, true},
    {Record::GRANT_DENIED, "grant-denied", "895c71fb651f428fa0873bbc149ce1af",
     kNotice, true},
    {Record::GRANT_ENDED, "grant-ended", "0c2c400e90cd4d788a18a3b0a0e22fc2",
     kInformational, true},
    {Record::GRANTS_REVOKED, "grants-revoked",
     "c98e616b16ca4b82a17db167120fa214", kNotice, true},
    {Record::NOT_LISTED, "not-listed", "271f82fd7907457aa50f17f75cb829bf",
     kWarning, true},
    {Record::RECORDS_LOST, "records-lost", "28933877887343b79b3864e4ff2bd995",
     kWarning, false},
};

constexpr absl::string_view kEventField = "BPFGRANT_EVENT";

// "DELIVERY_RING" as "ring", and back.
constexpr absl::string_view kDeliveryPrefix = "DELIVERY_";
constexpr absl::string_view kReasonPrefix = "REASON_";

std::string DeliveryName(v1::Delivery delivery) {
  return absl::AsciiStrToLower(
      absl::StripPrefix(v1::Delivery_Name(delivery), kDeliveryPrefix));
}

v1::Delivery ParseDelivery(absl::string_view name) {
  v1::Delivery delivery = v1::DELIVERY_ANY;
  v1::Delivery_Parse(absl::StrCat(kDeliveryPrefix, absl::AsciiStrToUpper(name)),
                     &delivery);
  return delivery;
}

v1::Reason ParseReason(absl::string_view name) {
  v1::Reason reason = v1::REASON_UNSPECIFIED;
  v1::Reason_Parse(absl::StrCat(kReasonPrefix,
                                absl::StrReplaceAll(absl::AsciiStrToUpper(name),
                                                    {{"-", "_"}})),
                   &reason);
  return reason;
}

// One field that is text: how it is read off a record and put there.
struct TextField {
  const char* name;
  const std::string& (*get)(const Record&);
  std::string* (*set)(Record&);
};

constexpr TextField kTextFields[] = {
    {kAuditProgramField,
     [](const Record& r) -> const std::string& { return r.about().program(); },
     [](Record& r) { return r.mutable_about()->mutable_program(); }},
    {"BPFGRANT_INTERFACE",
     [](const Record& r) -> const std::string& {
       return r.about().interface();
     },
     [](Record& r) { return r.mutable_about()->mutable_interface(); }},
    {kAuditDigestField,
     [](const Record& r) -> const std::string& { return r.about().digest(); },
     [](Record& r) { return r.mutable_about()->mutable_digest(); }},
    {"BPFGRANT_VARIANT",
     [](const Record& r) -> const std::string& { return r.about().variant(); },
     [](Record& r) { return r.mutable_about()->mutable_variant(); }},
    {kAuditUnitField,
     [](const Record& r) -> const std::string& { return r.about().unit(); },
     [](Record& r) { return r.mutable_about()->mutable_unit(); }},
    {"BPFGRANT_LABEL",
     [](const Record& r) -> const std::string& { return r.about().label(); },
     [](Record& r) { return r.mutable_about()->mutable_label(); }},
    {kAuditRuleField,
     [](const Record& r) -> const std::string& { return r.about().rule(); },
     [](Record& r) { return r.mutable_about()->mutable_rule(); }},
    {"BPFGRANT_FILE",
     [](const Record& r) -> const std::string& { return r.file(); },
     [](Record& r) { return r.mutable_file(); }},
    {"BPFGRANT_SIGNED_BY",
     [](const Record& r) -> const std::string& { return r.signed_by(); },
     [](Record& r) { return r.mutable_signed_by(); }},
    {"BPFGRANT_WHY",
     [](const Record& r) -> const std::string& { return r.why(); },
     [](Record& r) { return r.mutable_why(); }},
};

// Likewise, of numbers. 0 is none, but of what names a process.
struct NumberField {
  const char* name;
  bool who;
  uint64_t (*get)(const Record&);
  void (*set)(Record&, uint64_t);
};

constexpr NumberField kNumberFields[] = {
    {kAuditUidField, true,
     [](const Record& r) -> uint64_t { return r.about().uid(); },
     [](Record& r, uint64_t value) {
       r.mutable_about()->set_uid(static_cast<uint32_t>(value));
     }},
    {"BPFGRANT_PID", false,
     [](const Record& r) -> uint64_t { return r.about().pid(); },
     [](Record& r, uint64_t value) {
       r.mutable_about()->set_pid(static_cast<uint32_t>(value));
     }},
    {"BPFGRANT_SESSION", false,
     [](const Record& r) -> uint64_t { return r.about().session(); },
     [](Record& r, uint64_t value) { r.mutable_about()->set_session(value); }},
    {kAuditGrantField, false,
     [](const Record& r) -> uint64_t { return r.about().grant(); },
     [](Record& r, uint64_t value) { r.mutable_about()->set_grant(value); }},
    {"BPFGRANT_COUNT", false,
     [](const Record& r) -> uint64_t { return r.count(); },
     [](Record& r, uint64_t value) { r.set_count(value); }},
};

constexpr absl::string_view kReasonField = "BPFGRANT_REASON";
constexpr absl::string_view kDeliveryField = "BPFGRANT_DELIVERY";
constexpr absl::string_view kProgramIdField = "BPFGRANT_PROGRAM_ID";
constexpr absl::string_view kMapIdField = "BPFGRANT_MAP_ID";
constexpr absl::string_view kParameterField = "BPFGRANT_PARAMETER";

// "'sampler'", whatever bytes somebody asked for.
std::string Quoted(absl::string_view text) {
  return absl::StrCat("'", absl::Utf8SafeCEscape(text), "'");
}

std::string Who(const v1::GrantInfo& about) {
  return absl::StrCat(
      "uid ", about.uid(),
      about.pid() == 0 ? "" : absl::StrCat(", pid ", about.pid()),
      about.unit().empty() ? ""
                           : absl::StrCat(", unit ", Quoted(about.unit())));
}

std::string DescribeProgram(const Record& record) {
  const v1::GrantInfo& about = record.about();
  std::string text = absl::StrCat("program ", Quoted(about.program()));
  if (record.event() == Record::PROGRAM_WITHDRAWN) {
    return absl::StrCat(text, " left the catalog");
  }
  if (record.event() == Record::PROGRAM_UNAVAILABLE) {
    return absl::StrCat(text,
                        " is refused: ", absl::Utf8SafeCEscape(record.why()));
  }
  absl::StrAppend(&text, " is approved by ", record.file(), ", sha256 ",
                  about.digest());
  if (!about.variant().empty()) {
    absl::StrAppend(&text, ", variant ", Quoted(about.variant()));
  }
  return text;
}

std::string DescribeGrant(const Record& record) {
  const v1::GrantInfo& about = record.about();
  if (record.event() == Record::GRANT_DENIED) {
    return absl::StrCat(Quoted(about.program()), " is denied to ", Who(about),
                        ": ", ReasonName(record.reason()));
  }
  std::string text = absl::StrCat("grant ", about.grant(), " of ",
                                  Quoted(about.program()), " to ", Who(about));
  return record.event() == Record::GRANT_BEGAN
             ? absl::StrCat(text, " by rule ", Quoted(about.rule()))
             : absl::StrCat(text, " ended: ", ReasonName(record.reason()));
}

void ParseField(absl::string_view name, absl::string_view value,
                Record& record) {
  for (const TextField& field : kTextFields) {
    if (field.name == name)
      field.set(record)->assign(value.data(), value.size());
  }
  uint64_t number = 0;
  const bool is_number = absl::SimpleAtoi(value, &number);
  for (const NumberField& field : kNumberFields) {
    if (field.name == name && is_number) field.set(record, number);
  }
  v1::GrantInfo& about = *record.mutable_about();
  if (name == kEventField) {
    const AuditEvent* event = FindAuditEvent(value);
    if (event != nullptr) record.set_event(event->event);
  } else if (name == kReasonField) {
    record.set_reason(ParseReason(value));
  } else if (name == kDeliveryField) {
    about.set_delivery(ParseDelivery(value));
  } else if (name == kParameterField) {
    about.add_parameter(value.data(), value.size());
  } else if (name == kProgramIdField && is_number) {
    about.add_program_id(static_cast<uint32_t>(number));
  } else if (name == kMapIdField && is_number) {
    about.add_map_id(static_cast<uint32_t>(number));
  }
}

}  // namespace

absl::Span<const AuditEvent> AuditEvents() { return kEvents; }

const AuditEvent* FindAuditEvent(Record::Event event) {
  const auto found =
      std::find_if(std::begin(kEvents), std::end(kEvents),
                   [event](const AuditEvent& e) { return e.event == event; });
  return found == std::end(kEvents) ? nullptr : found;
}

const AuditEvent* FindAuditEvent(absl::string_view name) {
  const auto found =
      std::find_if(std::begin(kEvents), std::end(kEvents),
                   [name](const AuditEvent& e) { return e.name == name; });
  return found == std::end(kEvents) ? nullptr : found;
}

std::string DescribeAuditRecord(const Record& record) {
  switch (record.event()) {
    case Record::PROGRAM_APPROVED:
    case Record::PROGRAM_UNAVAILABLE:
    case Record::PROGRAM_WITHDRAWN:
      return DescribeProgram(record);
    case Record::CATALOG_LOADED:
      return absl::StrCat("catalog and policy are in force, ", record.count(),
                          " programs can be granted");
    case Record::RELOAD_REJECTED:
      return absl::StrCat("reload rejected: ",
                          absl::Utf8SafeCEscape(record.why()));
    case Record::GRANT_BEGAN:
    case Record::GRANT_DENIED:
    case Record::GRANT_ENDED:
      return DescribeGrant(record);
    case Record::GRANTS_REVOKED:
      return absl::StrCat(Who(record.about()), " revokes ",
                          absl::Utf8SafeCEscape(record.why()), ": ",
                          record.count(), " grants");
    case Record::NOT_LISTED:
      return absl::StrCat(
          record.count(), " more records about ", Who(record.about()),
          " are not listed: ", absl::Utf8SafeCEscape(record.why()));
    case Record::RECORDS_LOST:
      return absl::StrCat(record.count(),
                          " records are lost: the journal was too slow");
    default:
      return "";
  }
}

std::vector<std::string> AuditFields(const Record& record) {
  const AuditEvent& event = *FindAuditEvent(record.event());
  std::vector<std::string> fields = {
      absl::StrCat("MESSAGE=", DescribeAuditRecord(record)),
      absl::StrCat("MESSAGE_ID=", event.message_id),
      absl::StrCat("PRIORITY=", event.priority),
      absl::StrCat(kEventField, "=", event.name)};
  const auto add = [&fields](absl::string_view name, auto value) {
    fields.push_back(absl::StrCat(name, "=", value));
  };
  for (const TextField& field : kTextFields) {
    const std::string& value = field.get(record);
    if (!value.empty()) add(field.name, value);
  }
  for (const NumberField& field : kNumberFields) {
    const uint64_t value = field.get(record);
    if (value != 0 || (field.who && event.has_who)) add(field.name, value);
  }
  const v1::GrantInfo& about = record.about();
  if (record.reason() != v1::REASON_UNSPECIFIED) {
    add(kReasonField, ReasonName(record.reason()));
  }
  if (about.delivery() != v1::DELIVERY_ANY) {
    add(kDeliveryField, DeliveryName(about.delivery()));
  }
  for (const std::string& parameter : about.parameter()) {
    add(kParameterField, parameter);
  }
  for (const uint32_t id : about.program_id()) add(kProgramIdField, id);
  for (const uint32_t id : about.map_id()) add(kMapIdField, id);
  return fields;
}

Record ParseAuditFields(absl::Span<const std::string> fields) {
  Record record;
  for (const absl::string_view field : fields) {
    const size_t equals = field.find('=');
    if (equals == absl::string_view::npos) continue;
    ParseField(field.substr(0, equals), field.substr(equals + 1), record);
  }
  return record;
}

}  // namespace bpfgrant
