#include "daemon/broker/grace_period.h"

#include <sys/socket.h>

#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "spdlog/spdlog.h"

namespace bpfgrant::broker {
namespace {

// False: the keeper is gone.
bool Ask(int keeper) {
  char byte = 0;
  ssize_t length;
  do {
    length = send(keeper, &byte, 1, MSG_NOSIGNAL);
  } while (length < 0 && errno == EINTR);
  if (length != 1) return false;
  do {
    length = recv(keeper, &byte, 1, 0);
  } while (length < 0 && errno == EINTR);
  return length == 1;
}

}  // namespace

// What the thread and its owner share; it lives as long as either.
struct GracePeriod::Shared {
  UniqueFd keeper;
  std::mutex mutex;
  std::condition_variable changed;
  // Guarded by `mutex`.
  EventLoop* loop = nullptr;  // nullptr: over
  std::vector<std::function<void()>> waiting;
};

GracePeriod::GracePeriod(EventLoop& loop, UniqueFd keeper)
    : shared_(new Shared) {
  shared_->keeper = std::move(keeper);
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
  // Not to be joined: it waits for as long as somebody holds up the machine's
  // grace periods.
  std::thread([shared = shared_] { RunThread(shared); }).detach();
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
    if (!Ask(shared->keeper.get())) {
      // Their deadline answers for them: it is not known that they are done.
      spdlog::error("nobody tells of grace periods any more");
      return;
    }
    std::lock_guard lock(shared->mutex);
    if (shared->loop == nullptr) return;
    shared->loop->Post([served = std::move(served)] {
      for (const auto& done : served) done();
    });
  }
}

}  // namespace bpfgrant::broker
