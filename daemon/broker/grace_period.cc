#include "daemon/broker/grace_period.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "spdlog/spdlog.h"

namespace bpfgrant::broker {

// What the thread and its owner share; it lives as long as either.
struct GracePeriod::Shared {
  std::mutex mutex;
  std::condition_variable changed;
  // Guarded by `mutex`.
  EventLoop* loop = nullptr;  // nullptr: over
  std::vector<std::function<void()>> waiting;
};

GracePeriod::GracePeriod(EventLoop& loop) : shared_(new Shared) {
  shared_->loop = &loop;
}

GracePeriod::~GracePeriod() {
  std::lock_guard lock(shared_->mutex);
  shared_->loop = nullptr;
  shared_->changed.notify_one();
}

void GracePeriod::Wait(std::function<void()> done) {
  {
    std::lock_guard lock(shared_->mutex);
    shared_->waiting.push_back(std::move(done));
    shared_->changed.notify_one();
  }
  if (std::exchange(started_, true)) return;
  // Not to be joined: inside membarrier(2) it stays for as long as somebody
  // holds up the machine's grace periods.
  std::thread([shared = shared_] { RunThread(shared); }).detach();
}

bool GracePeriod::IsKnown(bool preemptible) {
  const long commands = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
  return commands > 0 && (commands & MEMBARRIER_CMD_GLOBAL) != 0 &&
         (!preemptible || sysconf(_SC_NPROCESSORS_ONLN) > 1);
}

void GracePeriod::RunThread(std::shared_ptr<Shared> shared) {
  for (;;) {
    std::vector<std::function<void()>> served;
    {
      std::unique_lock lock(shared->mutex);
      shared->changed.wait(lock, [&shared] {
        return shared->loop == nullptr || !shared->waiting.empty();
      });
      if (shared->loop == nullptr) return;
      served.swap(shared->waiting);
    }
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) < 0) {
      // Their deadline answers for them: it is not known that they are done.
      spdlog::warn("membarrier: {}", std::strerror(errno));
      continue;
    }
    std::lock_guard lock(shared->mutex);
    if (shared->loop == nullptr) return;
    shared->loop->Post([served = std::move(served)] {
      for (const auto& done : served) done();
    });
  }
}

}  // namespace bpfgrant::broker
