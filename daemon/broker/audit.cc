#include "daemon/broker/audit.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant::broker {
namespace {

using Record = v1::AuditRecord;

// Of a catalog; a fraction of a millisecond.
constexpr int kProgramsAtOnce = 64;

Record RecordOf(Record::Event event) {
  Record record;
  record.set_event(event);
  return record;
}

Record DescribeProgram(const Program& program) {
  const v1::DescribeReply& description = program.description();
  Record record = RecordOf(program.available() ? Record::PROGRAM_APPROVED
                                               : Record::PROGRAM_UNAVAILABLE);
  v1::GrantInfo& about = *record.mutable_about();
  about.set_program(program.name());
  about.set_interface(description.summary().interface());
  about.set_digest(description.digest());
  about.set_variant(ChosenVariant(description));
  record.set_file(description.file());
  record.set_signed_by(absl::StrJoin(description.signed_by(), ", "));
  if (!program.available()) {
    record.set_reason(description.summary().reason());
    record.set_why(description.refusal());
  }
  return record;
}

// Changes with whatever an auditor would want to know of.
std::string StateOf(const Program& program) {
  return absl::StrCat(program.entry.identity(), " ",
                      program.description().digest(), " ",
                      ChosenVariant(program.description()), " ",
                      absl::StrJoin(program.description().signed_by(), ","),
                      " ", program.description().refusal());
}

}  // namespace

void Audit::CatalogLoaded(std::shared_ptr<const Snapshot> snapshot) {
  ReadAll();
  reading_.emplace();
  reading_->next = snapshot->programs().begin();
  reading_->snapshot = std::move(snapshot);
  reading_->before = std::exchange(programs_, {});
  ReadOn();
}

void Audit::ReadOn() {
  if (!ReadSome()) return;
  loop_.Post([this] {
    if (reading_.has_value()) ReadOn();
  });
}

void Audit::ReadAll() {
  while (reading_.has_value()) ReadSome();
}

bool Audit::ReadSome() {
  const Snapshot::Programs& programs = reading_->snapshot->programs();
  auto& before = reading_->before;
  for (int i = 0; i < kProgramsAtOnce; ++i, ++reading_->next) {
    if (reading_->next == programs.end()) break;
    const auto& [name, program] = *reading_->next;
    reading_->available += program.available();
    const std::string& state = programs_[name] = StateOf(program);
    const auto known = before.find(name);
    if (known == before.end() || known->second != state) {
      sink_(DescribeProgram(program));
    }
    if (known != before.end()) before.erase(known);
  }
  if (reading_->next != programs.end()) return true;
  for (const auto& [name, state] : before) {
    Record record = RecordOf(Record::PROGRAM_WITHDRAWN);
    record.mutable_about()->set_program(name);
    sink_(std::move(record));
  }
  Record record = RecordOf(Record::CATALOG_LOADED);
  record.set_count(reading_->available);
  sink_(std::move(record));
  reading_.reset();
  return false;
}

void Audit::ReloadRejected(const absl::Status& why) {
  Record record = RecordOf(Record::RELOAD_REJECTED);
  record.set_reason(ReasonOf(why));
  record.set_why(std::string(why.message()));
  sink_(std::move(record));
}

bool Audit::GrantBegan(const v1::GrantInfo& grant) {
  // With its end.
  if (!Spend(&Account::grants, grant.uid(), 2)) return false;
  Record record = RecordOf(Record::GRANT_BEGAN);
  *record.mutable_about() = grant;
  sink_(std::move(record));
  return true;
}

void Audit::GrantEnded(const v1::GrantInfo& grant, v1::Reason why) {
  Record record = RecordOf(Record::GRANT_ENDED);
  *record.mutable_about() = grant;
  record.set_reason(why);
  sink_(std::move(record));
}

void Audit::GrantDenied(const v1::GrantInfo& wanted, const absl::Status& why) {
  if (!Spend(&Account::denials, wanted.uid(), 1)) return;
  Record record = RecordOf(Record::GRANT_DENIED);
  *record.mutable_about() = wanted;
  const v1::Refusal refusal = RefusalOf(why);
  record.set_reason(refusal.reason());
  record.set_why(refusal.message());
  if (refusal.has_verdict()) {
    record.mutable_about()->set_rule(refusal.verdict().rule());
  }
  sink_(std::move(record));
}

void Audit::GrantsRevoked(const Session& by, const std::string& what,
                          uint64_t count) {
  Record record = RecordOf(Record::GRANTS_REVOKED);
  v1::GrantInfo& who = *record.mutable_about();
  who.set_uid(by.peer.subject.uid);
  who.set_pid(static_cast<uint32_t>(by.peer.pid));
  who.set_unit(by.peer.unit());
  who.set_label(by.peer.subject.label.value_or(""));
  who.set_session(by.id);
  record.set_why(what);
  record.set_count(count);
  sink_(std::move(record));
}

bool Audit::Spend(Allowance Account::*allowance, uid_t uid, uint32_t records) {
  if (!mitigations_.audit_allowance) return true;
  const auto now = Allowance::Clock::now();
  Account& account =
      accounts_
          .try_emplace(
              uid, Account{{kAuditGrantBurst, kAuditGrantsPerSecond, now},
                           {kAuditDenialBurst, kAuditDenialsPerSecond, now}})
          .first->second;
  if (!flush_.active()) {
    flush_ = loop_.Timer(kAuditFlushInterval, [this] { Flush(); });
  }
  if ((account.*allowance).Take(records, now)) return true;
  account.not_listed += records;
  return false;
}

void Audit::Flush() {
  ReadAll();
  flush_ = EventLoop::Source();
  const auto now = Allowance::Clock::now();
  for (auto& [uid, account] : accounts_) {
    if (account.not_listed == 0) continue;
    Record record = RecordOf(Record::NOT_LISTED);
    record.mutable_about()->set_uid(uid);
    record.set_count(std::exchange(account.not_listed, 0));
    record.set_why("they came too fast");
    sink_(std::move(record));
  }
  absl::erase_if(accounts_, [now](auto& entry) {
    return entry.second.grants.IsFull(now) && entry.second.denials.IsFull(now);
  });
  if (!accounts_.empty()) {
    flush_ = loop_.Timer(kAuditFlushInterval, [this] { Flush(); });
  }
}

}  // namespace bpfgrant::broker
