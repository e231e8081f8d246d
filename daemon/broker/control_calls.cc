#include "daemon/broker/control_calls.h"

#include <string>
#include <utility>

#include "daemon/broker/control_stream.h"
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

grpc::Status SessionEnded() {
  return grpc::Status(grpc::StatusCode::ABORTED, "the session ended");
}

// gRPC's codes are abseil's; what else there is to say goes beside.
grpc::Status ToGrpc(grpc::CallbackServerContext& context,
                    const absl::Status& status) {
  const v1::Refusal refusal = RefusalOf(status);
  context.AddTrailingMetadata(kRefusalKey, refusal.SerializeAsString());
  return {static_cast<grpc::StatusCode>(status.code()), refusal.message()};
}

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
    shared_.service.Release(session, *request, std::move(answer));
  });
}

grpc::ServerUnaryReactor* ControlCalls::Rotate(
    grpc::CallbackServerContext* context, const v1::RotateRequest* request,
    v1::RotateReply* reply) {
  return Run(context, reply, [this, request](Session& session, auto answer) {
    shared_.service.Rotate(session, *request, std::move(answer));
  });
}

grpc::ServerUnaryReactor* ControlCalls::List(
    grpc::CallbackServerContext* context, const v1::ListRequest* request,
    v1::ListReply* reply) {
  return Run(context, reply, [this, request](Session& session, auto answer) {
    shared_.service.List(session, *request, std::move(answer));
  });
}

grpc::ServerUnaryReactor* ControlCalls::Describe(
    grpc::CallbackServerContext* context, const v1::DescribeRequest* request,
    v1::DescribeReply* reply) {
  return Run(context, reply, [this, request](Session& session, auto answer) {
    shared_.service.Describe(session, *request, std::move(answer));
  });
}

grpc::ServerUnaryReactor* ControlCalls::Explain(
    grpc::CallbackServerContext* context, const v1::ExplainRequest* request,
    v1::ExplainReply* reply) {
  return Run(context, reply, [this, request](Session& session, auto answer) {
    shared_.service.Explain(session, *request, std::move(answer));
  });
}

grpc::ServerUnaryReactor* ControlCalls::Matrix(
    grpc::CallbackServerContext* context, const v1::MatrixRequest* request,
    v1::MatrixReply* reply) {
  return Run(context, reply, [this, request](Session& session, auto answer) {
    answer(shared_.service.Matrix(session, *request));
  });
}

grpc::ServerUnaryReactor* ControlCalls::Denials(
    grpc::CallbackServerContext* context, const v1::DenialsRequest* request,
    v1::DenialsReply* reply) {
  return Run(context, reply, [this, request](Session& session, auto answer) {
    answer(shared_.service.Denials(session, *request));
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

grpc::ServerUnaryReactor* ControlCalls::Metrics(
    grpc::CallbackServerContext* context, const v1::MetricsRequest* request,
    v1::MetricsReply* reply) {
  return Run(context, reply, [this, request](Session& session, auto answer) {
    shared_.service.Metrics(session, *request, std::move(answer));
  });
}

grpc::ServerUnaryReactor* ControlCalls::Activity(
    grpc::CallbackServerContext* context, const v1::ActivityRequest* request,
    v1::ActivityReply* reply) {
  return Run(context, reply, [this, request](Session& session, auto answer) {
    shared_.service.Activity(session, *request, std::move(answer));
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
  using Stream = ControlStream<v1::Event>;
  auto* stream = new Stream(
      shared_.loop, kMaxQueuedEvents, [this](uint64_t session, uint64_t id) {
        shared_.watchers.Remove(id);
        if (Connection* connection = shared_.sessions.Find(session)) {
          connection->session().streams.erase(id);
        }
      });
  shared_.loop.Post([this, stream, context, token = Token(*context)] {
    Session* session = shared_.sessions.FindByToken(token);
    stream->Begin(session == nullptr ? 0 : session->id, [&] {
      if (session == nullptr) {
        return Stream::Subscription{0, ToGrpc(*context, NoSession())};
      }
      if (session->streams.size() >= kMaxStreamsPerSession ||
          shared_.watchers.Of(session->peer.subject.uid) >=
              kMaxWatchersPerUser) {
        return Stream::Subscription{
            0, ToGrpc(*context, Refuse(v1::REASON_BUSY,
                                       "enough watch for this user already"))};
      }
      const uint64_t watcher = shared_.watchers.Add(
          session->peer.subject.uid, session->administrator,
          [stream](const v1::Event& event) {
            if (stream->Push(event)) return;
            stream->End(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED,
                                     "events were not read"));
          });
      session->streams.emplace(
          watcher, [stream] { stream->EndForgotten(SessionEnded()); });
      return Stream::Subscription{watcher, grpc::Status::OK};
    });
  });
  return stream;
}

grpc::ServerWriteReactor<v1::TraceEvent>* ControlCalls::Trace(
    grpc::CallbackServerContext* context, const v1::TraceRequest* request) {
  using Stream = ControlStream<v1::TraceEvent>;
  auto* stream = new Stream(
      shared_.loop, kMaxQueuedEvents, [this](uint64_t session, uint64_t id) {
        shared_.service.EndTrace(id);
        if (Connection* connection = shared_.sessions.Find(session)) {
          connection->session().traces.erase(id);
        }
      });
  const auto sink = [stream](const v1::TraceEvent& event) {
    if (event.kind() != v1::TraceEvent::KIND_ENDED) return stream->Push(event);
    stream->EndAfter(event);
    return true;
  };
  shared_.loop.Post(
      [this, stream, sink, context, request, token = Token(*context)] {
        Session* session = shared_.sessions.FindByToken(token);
        stream->Begin(session == nullptr ? 0 : session->id, [&] {
          if (session == nullptr) {
            return Stream::Subscription{0, ToGrpc(*context, NoSession())};
          }
          const auto reader = shared_.service.Trace(*session, *request, sink);
          if (!reader.ok()) {
            return Stream::Subscription{0, ToGrpc(*context, reader.status())};
          }
          session->traces.emplace(
              *reader, [stream] { stream->EndForgotten(SessionEnded()); });
          return Stream::Subscription{*reader, grpc::Status::OK};
        });
      });
  return stream;
}

}  // namespace bpfgrant::broker
