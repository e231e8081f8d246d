#include "daemon/broker/control_calls.h"

#include <deque>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/control_metadata.h"
#include "proto/wire/limits.h"

namespace bpfgrant::broker {
namespace {

std::string Token(const grpc::CallbackServerContext& context) {
  const auto& metadata = context.client_metadata();
  const auto found = metadata.find(kTokenKey);
  return found == metadata.end()
             ? std::string()
             : std::string(found->second.data(), found->second.size());
}

absl::Status NoSession() {
  return Refuse(v1::REASON_NO_SESSION,
                "the call names no session that is open");
}

// gRPC's codes are abseil's; what else there is to say goes beside.
grpc::Status ToGrpc(grpc::CallbackServerContext& context,
                    const absl::Status& status) {
  const v1::Refusal refusal = RefusalOf(status);
  context.AddTrailingMetadata(kRefusalKey, refusal.SerializeAsString());
  return {static_cast<grpc::StatusCode>(status.code()), refusal.message()};
}

// One watcher's stream. gRPC calls it on its threads, events come from the
// loop's; it deletes itself when gRPC is done with it.
class WatchStream final : public grpc::ServerWriteReactor<v1::Event> {
 public:
  WatchStream(EventLoop& loop, Watchers& watchers, Acceptor& sessions)
      : loop_(loop), watchers_(watchers), sessions_(sessions) {}

  // On the loop's thread: from now on it hears of what `session` may. While the
  // lock is held and the stream not finished, gRPC has not called OnDone, and
  // what belongs to the call is still there; a call that was cancelled before
  // its turn is not touched any more.
  void Subscribe(Session& session) {
    absl::MutexLock lock(&mutex_);
    if (finished_) return;
    session_ = session.id;
    watcher_ = watchers_.Add(session.peer.subject.uid, session.administrator,
                             [this](const v1::Event& event) { Push(event); });
    session.streams.emplace(watcher_, [this] {
      watcher_ = 0;
      End(grpc::Status(grpc::StatusCode::ABORTED, "the session ended"));
    });
    // So that the client knows from when on nothing is missed.
    StartSendInitialMetadata();
  }
  void Push(const v1::Event& event) {
    absl::MutexLock lock(&mutex_);
    if (finished_) return;
    if (queue_.size() >= kMaxQueuedEvents) {
      FinishLocked(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED,
                                "events were not read"));
      return;
    }
    queue_.push_back(event);
    if (queue_.size() == 1) StartWrite(&queue_.front());
  }
  // Likewise: refuses the call.
  void Reject(grpc::CallbackServerContext& context,
              const absl::Status& status) {
    absl::MutexLock lock(&mutex_);
    if (!finished_) FinishLocked(ToGrpc(context, status));
  }
  void End(const grpc::Status& status) {
    absl::MutexLock lock(&mutex_);
    FinishLocked(status);
  }

  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mutex_);
    if (finished_) return;
    if (!ok) {
      FinishLocked(grpc::Status(grpc::StatusCode::CANCELLED, "the peer left"));
      return;
    }
    queue_.pop_front();
    if (!queue_.empty()) StartWrite(&queue_.front());
  }
  void OnCancel() override {
    End(grpc::Status(grpc::StatusCode::CANCELLED, "the peer left"));
  }
  void OnDone() override {
    loop_.Post([this] {
      if (watcher_ != 0) {
        watchers_.Remove(watcher_);
        if (Connection* connection = sessions_.Find(session_)) {
          connection->session().streams.erase(watcher_);
        }
      }
      delete this;
    });
  }

 private:
  void FinishLocked(const grpc::Status& status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (std::exchange(finished_, true)) return;
    Finish(status);
  }

  EventLoop& loop_;
  Watchers& watchers_;
  Acceptor& sessions_;
  uint64_t session_ = 0;
  uint64_t watcher_ = 0;
  absl::Mutex mutex_;
  std::deque<v1::Event> queue_ ABSL_GUARDED_BY(mutex_);
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace

template <typename Reply, typename Handler>
grpc::ServerUnaryReactor* ControlCalls::Run(
    grpc::CallbackServerContext* context, Reply* reply, Handler handler) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  // The call, with its context, request and reply, lives until Finish.
  auto answer = [context, reply, reactor,
                 &service = shared_.service](absl::StatusOr<Reply> result) {
    if (result.ok()) {
      *reply = *std::move(result);
      reactor->Finish(grpc::Status::OK);
      return;
    }
    service.CountRefusal(RefusalOf(result.status()).reason());
    reactor->Finish(ToGrpc(*context, result.status()));
  };
  shared_.loop.Post([&sessions = shared_.sessions, token = Token(*context),
                     handler = std::move(handler),
                     answer = std::move(answer)]() mutable {
    Session* session = sessions.FindByToken(token);
    if (session == nullptr) {
      answer(NoSession());
      return;
    }
    handler(*session, std::move(answer));
  });
  return reactor;
}

grpc::ServerUnaryReactor* ControlCalls::Acquire(
    grpc::CallbackServerContext* context, const v1::AcquireRequest* request,
    v1::AcquireReply* reply) {
  return Run(context, reply, [this, request](Session& session, auto answer) {
    shared_.service.Acquire(
        session, *request, {}, /*claim_later=*/true,
        [answer = std::move(answer)](absl::StatusOr<Delivered> got) mutable {
          if (got.ok()) {
            answer(std::move(got->reply));
          } else {
            answer(got.status());
          }
        });
  });
}

grpc::ServerUnaryReactor* ControlCalls::Claim(
    grpc::CallbackServerContext* context, const v1::ClaimRequest*,
    v1::AcquireReply* reply) {
  return Run(context, reply, [](Session&, auto answer) {
    answer(Refuse(v1::REASON_NEEDS_BROKER_SOCKET, "fds cannot come over gRPC"));
  });
}

grpc::ServerUnaryReactor* ControlCalls::Release(
    grpc::CallbackServerContext* context, const v1::ReleaseRequest* request,
    v1::ReleaseReply* reply) {
  return Run(context, reply, [this, request](Session& session, auto answer) {
    answer(shared_.service.Release(session, *request));
  });
}

grpc::ServerUnaryReactor* ControlCalls::List(
    grpc::CallbackServerContext* context, const v1::ListRequest* request,
    v1::ListReply* reply) {
  return Run(context, reply, [this, request](Session& session, auto answer) {
    answer(shared_.service.List(session, *request));
  });
}

grpc::ServerUnaryReactor* ControlCalls::Describe(
    grpc::CallbackServerContext* context, const v1::DescribeRequest* request,
    v1::DescribeReply* reply) {
  return Run(context, reply, [this, request](Session& session, auto answer) {
    answer(shared_.service.Describe(session, *request));
  });
}

grpc::ServerUnaryReactor* ControlCalls::Explain(
    grpc::CallbackServerContext* context, const v1::ExplainRequest* request,
    v1::ExplainReply* reply) {
  return Run(context, reply, [this, request](Session& session, auto answer) {
    answer(shared_.service.Explain(session, *request));
  });
}

grpc::ServerUnaryReactor* ControlCalls::Grants(
    grpc::CallbackServerContext* context, const v1::GrantsRequest* request,
    v1::GrantsReply* reply) {
  return Run(context, reply, [this, request](Session& session, auto answer) {
    answer(shared_.service.Grants(session, *request));
  });
}

grpc::ServerUnaryReactor* ControlCalls::Status(
    grpc::CallbackServerContext* context, const v1::StatusRequest* request,
    v1::StatusReply* reply) {
  return Run(context, reply, [this, request](Session& session, auto answer) {
    answer(shared_.service.Status(session, *request));
  });
}

grpc::ServerUnaryReactor* ControlCalls::Revoke(
    grpc::CallbackServerContext* context, const v1::RevokeRequest* request,
    v1::RevokeReply* reply) {
  return Run(context, reply, [this, request](Session& session, auto answer) {
    shared_.service.Revoke(session, *request, std::move(answer));
  });
}

grpc::ServerUnaryReactor* ControlCalls::Reload(
    grpc::CallbackServerContext* context, const v1::ReloadRequest* request,
    v1::ReloadReply* reply) {
  return Run(context, reply, [this, request](Session& session, auto answer) {
    shared_.service.Reload(session, *request, std::move(answer));
  });
}

grpc::ServerWriteReactor<v1::Event>* ControlCalls::Watch(
    grpc::CallbackServerContext* context, const v1::WatchRequest*) {
  auto* stream =
      new WatchStream(shared_.loop, shared_.watchers, shared_.sessions);
  shared_.loop.Post([this, stream, context, token = Token(*context)] {
    Session* session = shared_.sessions.FindByToken(token);
    if (session == nullptr) {
      stream->Reject(*context, NoSession());
    } else if (session->streams.size() >= kMaxStreamsPerSession ||
               shared_.watchers.Of(session->peer.subject.uid) >=
                   kMaxWatchersPerUser) {
      stream->Reject(*context, Refuse(v1::REASON_BUSY,
                                      "enough watch for this user already"));
    } else {
      stream->Subscribe(*session);
    }
  });
  return stream;
}

}  // namespace bpfgrant::broker
