#include "daemon/broker/journal.h"

// The journal would be told this file and line for each record.
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <sys/uio.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <deque>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "proto/audit/audit_record.h"
#include "proto/wire/limits.h"

namespace bpfgrant::broker {
namespace {

constexpr char kSocket[] = "/run/systemd/journal/socket";
constexpr absl::Duration kStopPatience = absl::Seconds(1);

}  // namespace

struct Journal::Queue {
  // There is something to be told of what was lost, and who takes it.
  bool TellsLoss() const ABSL_SHARED_LOCKS_REQUIRED(mutex) {
    return taken && lost > lost_told;
  }
  bool HasWork() const ABSL_SHARED_LOCKS_REQUIRED(mutex) {
    return stopping || !records.empty() || TellsLoss();
  }

  absl::Mutex mutex;
  std::deque<v1::AuditRecord> records ABSL_GUARDED_BY(mutex);
  uint64_t lost ABSL_GUARDED_BY(mutex) = 0;
  uint64_t lost_told ABSL_GUARDED_BY(mutex) = 0;
  bool taken ABSL_GUARDED_BY(mutex) = true;  // the last one that was written
  bool stopping ABSL_GUARDED_BY(mutex) = false;
  bool done ABSL_GUARDED_BY(mutex) = false;
};

Journal::Journal(Writer writer) : queue_(std::make_shared<Queue>()) {
  std::thread([queue = queue_, writer = std::move(writer)] {
    Run(*queue, writer);
  }).detach();
}

Journal::~Journal() {
  absl::MutexLock lock(&queue_->mutex);
  queue_->stopping = true;
  queue_->mutex.AwaitWithTimeout(absl::Condition(&queue_->done), kStopPatience);
}

void Journal::Write(v1::AuditRecord record) {
  absl::MutexLock lock(&queue_->mutex);
  if (queue_->records.size() >= kMaxQueuedRecords) {
    ++queue_->lost;
    return;
  }
  queue_->records.push_back(std::move(record));
}

uint64_t Journal::lost() const {
  absl::MutexLock lock(&queue_->mutex);
  return queue_->lost;
}

void Journal::Run(Queue& queue, const Writer& writer) {
  absl::MutexLock lock(&queue.mutex);
  for (;;) {
    queue.mutex.Await(absl::Condition(&queue, &Queue::HasWork));
    v1::AuditRecord record;
    const uint64_t untold = queue.lost - queue.lost_told;
    const bool tells_loss = queue.TellsLoss();
    if (tells_loss) {
      record.set_event(v1::AuditRecord::RECORDS_LOST);
      record.set_count(untold);
    } else if (!queue.records.empty()) {
      record = std::move(queue.records.front());
      queue.records.pop_front();
    } else {
      break;
    }
    queue.mutex.Unlock();
    const bool taken = writer(record);
    queue.mutex.Lock();
    queue.taken = taken;
    if (tells_loss && taken) queue.lost_told += untold;
    if (!tells_loss && !taken) ++queue.lost;
  }
  queue.done = true;
}

std::string Journal::Where() {
  if (access(kSocket, F_OK) == 0) return "journal";
  return absl::StrCat("nowhere: ", kSocket, ": ", std::strerror(errno));
}

bool Journal::WriteToSystemd(const v1::AuditRecord& record) {
  const std::vector<std::string> fields = AuditFields(record);
  std::vector<iovec> vectors;
  vectors.reserve(fields.size());
  for (const std::string& field : fields) {
    vectors.push_back({const_cast<char*>(field.data()), field.size()});
  }
  return sd_journal_sendv(vectors.data(), static_cast<int>(vectors.size())) ==
         0;
}

}  // namespace bpfgrant::broker
