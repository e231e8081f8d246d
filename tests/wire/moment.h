// Something that one thread waits for and another one lets happen, once.

#ifndef TESTS_WIRE_MOMENT_H_
#define TESTS_WIRE_MOMENT_H_

#include <condition_variable>
#include <mutex>

namespace bpfgrant::broker_test {

// absl::Notification, but of what ThreadSanitizer sees through.
class Moment {
 public:
  void Happen() {
    std::lock_guard lock(mutex_);
    happened_ = true;
    // With the mutex held: whoever waits may destroy this right afterwards.
    changed_.notify_all();
  }
  void Wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return happened_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool happened_ = false;
};

}  // namespace bpfgrant::broker_test

#endif  // TESTS_WIRE_MOMENT_H_
