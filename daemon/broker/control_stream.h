// One gRPC call that is answered with a stream. gRPC calls it on its threads,
// messages come from the loop's; it deletes itself when gRPC is done with it.

#ifndef DAEMON_BROKER_CONTROL_STREAM_H_
#define DAEMON_BROKER_CONTROL_STREAM_H_

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"
#include "daemon/broker/event_loop.h"

namespace bpfgrant::broker {

template <typename Message>
class ControlStream final : public grpc::ServerWriteReactor<Message> {
 public:
  // What the stream was subscribed to; 0: nothing, and the call is refused.
  struct Subscription {
    uint64_t id = 0;
    grpc::Status refusal;
  };

  // On the loop's thread `forget` ends a subscription of a session.
  ControlStream(EventLoop& loop, size_t most,
                std::function<void(uint64_t session, uint64_t id)> forget)
      : loop_(loop), most_(most), forget_(std::move(forget)) {}

  // On the loop's thread: from now on it gets messages. While the lock is held
  // and the stream not finished, gRPC has not called OnDone, and what belongs
  // to the call is still there; a call that was cancelled before its turn is
  // not touched any more.
  void Begin(uint64_t session, absl::FunctionRef<Subscription()> subscribe) {
    absl::MutexLock lock(&mutex_);
    if (finished_) return;
    const Subscription subscription = subscribe();
    if (subscription.id == 0) {
      FinishLocked(subscription.refusal);
      return;
    }
    session_ = session;
    subscription_ = subscription.id;
    // So that the client knows from when on nothing is missed.
    this->StartSendInitialMetadata();
  }
  // False if too many are unread.
  bool Push(const Message& message) {
    absl::MutexLock lock(&mutex_);
    if (finished_) return true;
    if (queue_.size() >= most_) return false;
    queue_.push_back(message);
    if (queue_.size() == 1) this->StartWrite(&queue_.front());
    return true;
  }
  void End(const grpc::Status& status) {
    absl::MutexLock lock(&mutex_);
    FinishLocked(status);
  }
  // On the loop's thread: the same for a subscription that is over already.
  void EndForgotten(const grpc::Status& status) {
    subscription_ = 0;
    End(status);
  }
  // What is queued is still written, and `last`, however many that are.
  void EndAfter(const Message& last) {
    absl::MutexLock lock(&mutex_);
    if (finished_) return;
    ending_ = true;
    queue_.push_back(last);
    if (queue_.size() == 1) this->StartWrite(&queue_.front());
  }

  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mutex_);
    if (finished_) return;
    if (!ok) {
      FinishLocked(grpc::Status(grpc::StatusCode::CANCELLED, "the peer left"));
      return;
    }
    queue_.pop_front();
    if (!queue_.empty()) {
      this->StartWrite(&queue_.front());
    } else if (ending_) {
      FinishLocked(grpc::Status::OK);
    }
  }
  void OnCancel() override {
    End(grpc::Status(grpc::StatusCode::CANCELLED, "the peer left"));
  }
  void OnDone() override {
    loop_.Post([this] {
      if (subscription_ != 0) forget_(session_, subscription_);
      delete this;
    });
  }

 private:
  void FinishLocked(const grpc::Status& status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (std::exchange(finished_, true)) return;
    this->Finish(status);
  }

  EventLoop& loop_;
  const size_t most_;
  const std::function<void(uint64_t, uint64_t)> forget_;
  uint64_t session_ = 0;
  uint64_t subscription_ = 0;
  absl::Mutex mutex_;
  std::deque<Message> queue_ ABSL_GUARDED_BY(mutex_);
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_CONTROL_STREAM_H_
