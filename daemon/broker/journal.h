// Writes records of the audit trail to the journal, in a thread of its own: the
// broker's loop waits for no journald.

#ifndef DAEMON_BROKER_JOURNAL_H_
#define DAEMON_BROKER_JOURNAL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "bpfgrant/v1/audit.pb.h"

namespace bpfgrant::broker {

class Journal {
 public:
  // Called by that thread. False: the record was not taken.
  using Writer = std::function<bool(const v1::AuditRecord&)>;

  explicit Journal(Writer writer = WriteToSystemd);
  // Waits for what has not been written yet, one second at most.
  ~Journal();

  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  // Never waits. What finds kMaxQueuedRecords before it is lost; the number of
  // those is written when there is room again.
  void Write(v1::AuditRecord record);
  // So far.
  uint64_t lost() const;

  // Whether a journald is there: "journal", else "nowhere: why".
  static std::string Where();

 private:
  struct Queue;

  static bool WriteToSystemd(const v1::AuditRecord& record);
  static void Run(Queue& queue, const Writer& writer);

  // The thread's, too: it outlives this if the journal hangs.
  std::shared_ptr<Queue> queue_;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_JOURNAL_H_
