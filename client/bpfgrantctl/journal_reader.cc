#include "client/bpfgrantctl/journal_reader.h"

#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "proto/audit/audit_record.h"

namespace bpfgrant::ctl {
namespace {

absl::Status Failed(absl::string_view what, int error) {
  return absl::InternalError(
      absl::StrCat("the journal: ", what, ": ", std::strerror(-error)));
}

}  // namespace

absl::StatusOr<JournalReader> JournalReader::Open(const AuditQuery& query) {
  sd_journal* opened = nullptr;
  const int error =
      query.directory.empty()
          ? sd_journal_open(&opened, SD_JOURNAL_LOCAL_ONLY | SD_JOURNAL_SYSTEM)
          : sd_journal_open_directory(&opened, query.directory.c_str(), 0);
  if (error < 0) {
    return absl::UnavailableError(
        absl::StrCat(query.directory.empty() ? "the journal" : query.directory,
                     ": ", std::strerror(-error)));
  }
  JournalReader reader;
  reader.journal_.reset(opened);
  // Files that the caller may not read are passed over in silence.
  uint64_t bytes = 0;
  if (sd_journal_get_usage(opened, &bytes) < 0 || bytes == 0) {
    return absl::UnavailableError(
        "there is no journal that you may read: be root, or a member of the "
        "group systemd-journal");
  }
  if (absl::Status status = reader.AddMatches(query); !status.ok()) {
    return status;
  }
  if (absl::Status status = reader.Seek(query); !status.ok()) return status;
  return reader;
}

absl::Status JournalReader::AddMatches(const AuditQuery& query) {
  std::vector<std::string> matches = query.matches;
  matches.push_back(absl::StrCat("_SYSTEMD_UNIT=", query.written_by));
  // Of one field it takes any, of several fields all.
  for (const AuditEvent& event : AuditEvents()) {
    if (query.events.empty()) {
      matches.push_back(absl::StrCat("MESSAGE_ID=", event.message_id));
    }
  }
  for (const v1::AuditRecord::Event event : query.events) {
    matches.push_back(
        absl::StrCat("MESSAGE_ID=", FindAuditEvent(event)->message_id));
  }
  for (const std::string& match : matches) {
    const int error =
        sd_journal_add_match(journal_.get(), match.data(), match.size());
    if (error < 0) return Failed(match, error);
  }
  return absl::OkStatus();
}

absl::Status JournalReader::Seek(const AuditQuery& query) {
  since_us_ = query.since_us.value_or(0);
  until_us_ = query.until_us.value_or(UINT64_MAX);
  int error = 0;
  if (!query.lines.has_value()) {
    error = query.since_us.has_value()
                ? sd_journal_seek_realtime_usec(journal_.get(), since_us_)
                : sd_journal_seek_head(journal_.get());
    return error < 0 ? Failed("seek", error) : absl::OkStatus();
  }
  error = query.until_us.has_value()
              ? sd_journal_seek_realtime_usec(journal_.get(), until_us_ + 1)
              : sd_journal_seek_tail(journal_.get());
  if (error < 0) return Failed("seek", error);
  error = sd_journal_previous_skip(journal_.get(), *query.lines);
  if (error < 0) return Failed("seek", error);
  at_record_ = error > 0;
  return absl::OkStatus();
}

absl::StatusOr<std::optional<v1::AuditRecord>> JournalReader::Next() {
  for (;;) {
    if (!std::exchange(at_record_, false)) {
      const int more = sd_journal_next(journal_.get());
      if (more < 0) return Failed("next", more);
      if (more == 0) return std::nullopt;
    }
    auto record = ReadRecord();
    if (!record.ok()) return record.status();
    const auto at = static_cast<uint64_t>(record->at_unix_us());
    if (at > until_us_) return std::nullopt;
    if (at >= since_us_ &&
        record->event() != v1::AuditRecord::EVENT_UNSPECIFIED) {
      return *std::move(record);
    }
  }
}

absl::StatusOr<v1::AuditRecord> JournalReader::ReadRecord() {
  std::vector<std::string> fields;
  const void* data = nullptr;
  size_t size = 0;
  sd_journal_restart_data(journal_.get());
  while (sd_journal_enumerate_available_data(journal_.get(), &data, &size) >
         0) {
    fields.emplace_back(static_cast<const char*>(data), size);
  }
  v1::AuditRecord record = ParseAuditFields(fields);
  uint64_t at = 0;
  const int error = sd_journal_get_realtime_usec(journal_.get(), &at);
  if (error < 0) return Failed("time", error);
  record.set_at_unix_us(static_cast<int64_t>(at));
  return record;
}

absl::Status JournalReader::Wait() {
  const int error = sd_journal_wait(journal_.get(), UINT64_MAX);
  return error < 0 ? Failed("wait", error) : absl::OkStatus();
}

}  // namespace bpfgrant::ctl
