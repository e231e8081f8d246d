#include "daemon/broker/grace_period.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "spdlog/spdlog.h"

namespace bpfgrant::broker {

// What the thread and its owner share; it lives as long as either.
struct GracePeriod::Shared {
  absl::Mutex mutex;
  EventLoop* loop ABSL_GUARDED_BY(mutex) = nullptr;  // nullptr: over
  std::vector<std::function<void()>> waiting ABSL_GUARDED_BY(mutex);
};

GracePeriod::GracePeriod(EventLoop& loop) : shared_(new Shared) {
  absl::MutexLock lock(&shared_->mutex);
  shared_->loop = &loop;
}

GracePeriod::~GracePeriod() {
  absl::MutexLock lock(&shared_->mutex);
  shared_->loop = nullptr;
}

void GracePeriod::Wait(std::function<void()> done) {
  {
    absl::MutexLock lock(&shared_->mutex);
    shared_->waiting.push_back(std::move(done));
  }
  if (std::exchange(started_, true)) return;
  // Not to be joined: inside membarrier(2) it stays for as long as somebody
  // holds up the machine's grace periods.
  std::thread([shared = shared_] { RunThread(shared); }).detach();
}

void GracePeriod::RunThread(std::shared_ptr<Shared> shared) {
  for (;;) {
    std::vector<std::function<void()>> served;
    {
      absl::MutexLock lock(&shared->mutex);
      const auto wanted = [&shared] {
        shared->mutex.AssertHeld();
        return shared->loop == nullptr || !shared->waiting.empty();
      };
      shared->mutex.Await(absl::Condition(&wanted));
      if (shared->loop == nullptr) return;
      served.swap(shared->waiting);
    }
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) < 0) {
      // Their deadline answers for them: it is not known that they are done.
      spdlog::warn("membarrier: {}", std::strerror(errno));
      continue;
    }
    absl::MutexLock lock(&shared->mutex);
    if (shared->loop == nullptr) return;
    shared->loop->Post([served = std::move(served)] {
      for (const auto& done : served) done();
    });
  }
}

}  // namespace bpfgrant::broker
