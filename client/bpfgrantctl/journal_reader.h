// Reads the audit trail back from the journal, without the daemon.

#ifndef CLIENT_BPFGRANTCTL_JOURNAL_READER_H_
#define CLIENT_BPFGRANTCTL_JOURNAL_READER_H_

#include <systemd/sd-journal.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bpfgrant/v1/audit.pb.h"

namespace bpfgrant::ctl {

// What is looked for. Of each kind that is given, one must match.
struct AuditQuery {
  std::vector<v1::AuditRecord::Event> events;
  // "FIELD=value", by the field names of proto/audit.
  std::vector<std::string> matches;
  std::optional<uint64_t> since_us, until_us;  // since 1970
  // Only the last so many.
  std::optional<uint64_t> lines;
  // Journal files of another machine.
  std::string directory;
  // Anybody may write to the journal, and say so anything. What counts is what
  // journald itself says of who wrote it: this systemd unit.
  std::string written_by;
};

class JournalReader {
 public:
  // kUnavailable: no journal that the caller may read;
  // kInternal, with the errno.
  static absl::StatusOr<JournalReader> Open(const AuditQuery& query);

  // The next record; none when there is no other by now.
  absl::StatusOr<std::optional<v1::AuditRecord>> Next();
  // Until the journal has grown, or may have.
  absl::Status Wait();

 private:
  struct Close {
    void operator()(sd_journal* journal) const { sd_journal_close(journal); }
  };

  absl::Status AddMatches(const AuditQuery& query);
  absl::Status Seek(const AuditQuery& query);
  absl::StatusOr<v1::AuditRecord> ReadRecord();

  std::unique_ptr<sd_journal, Close> journal_;
  uint64_t since_us_ = 0;
  uint64_t until_us_ = UINT64_MAX;
  bool at_record_ = false;  // the next is the one it stands on
};

}  // namespace bpfgrant::ctl

#endif  // CLIENT_BPFGRANTCTL_JOURNAL_READER_H_
