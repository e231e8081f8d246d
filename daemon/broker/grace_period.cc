#include "daemon/broker/grace_period.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <utility>

namespace bpfgrant::broker {

GracePeriod::~GracePeriod() {
  if (!thread_.joinable()) return;
  bool idle;
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
    idle = idle_;
  }
  // A thread inside membarrier(2) may stay there for as long as somebody holds
  // up the machine's grace periods; the process ends without it.
  if (idle) {
    thread_.join();
  } else {
    thread_.detach();
  }
}

void GracePeriod::Wait(std::function<void()> done) {
  {
    absl::MutexLock lock(&mutex_);
    waiting_.push_back(std::move(done));
  }
  if (!thread_.joinable()) thread_ = std::thread([this] { RunThread(); });
}

void GracePeriod::RunThread() {
  for (;;) {
    std::vector<std::function<void()>> served;
    {
      absl::MutexLock lock(&mutex_);
      idle_ = true;
      const auto wanted = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stop_ || !waiting_.empty();
      };
      mutex_.Await(absl::Condition(&wanted));
      if (stop_) return;
      idle_ = false;
      served.swap(waiting_);
    }
    syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0);
    loop_.Post([served = std::move(served)] {
      for (const auto& done : served) done();
    });
  }
}

}  // namespace bpfgrant::broker
