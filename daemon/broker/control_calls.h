// Each call of the gRPC service, turned into work for the loop.

#ifndef DAEMON_BROKER_CONTROL_CALLS_H_
#define DAEMON_BROKER_CONTROL_CALLS_H_

#include <memory>

#include "bpfgrant/v1/service.grpc.pb.h"
#include "daemon/broker/accept.h"
#include "daemon/broker/event_loop.h"
#include "daemon/broker/service.h"

namespace bpfgrant::broker {

class ControlCalls final : public v1::Bpfgrant::CallbackService {
 public:
  // What calls that outlive the broker's stop still find: nothing.
  struct Shared {
    EventLoop& loop;
    broker::Service& service;
    Watchers& watchers;
    Acceptor& sessions;
  };

  explicit ControlCalls(Shared shared) : shared_(shared) {}

  grpc::ServerUnaryReactor* Acquire(grpc::CallbackServerContext* context,
                                    const v1::AcquireRequest* request,
                                    v1::AcquireReply* reply) override;
  grpc::ServerUnaryReactor* Claim(grpc::CallbackServerContext* context,
                                  const v1::ClaimRequest* request,
                                  v1::AcquireReply* reply) override;
  grpc::ServerUnaryReactor* Rotate(grpc::CallbackServerContext* context,
                                   const v1::RotateRequest* request,
                                   v1::RotateReply* reply) override;
  grpc::ServerUnaryReactor* Release(grpc::CallbackServerContext* context,
                                    const v1::ReleaseRequest* request,
                                    v1::ReleaseReply* reply) override;
  grpc::ServerUnaryReactor* List(grpc::CallbackServerContext* context,
                                 const v1::ListRequest* request,
                                 v1::ListReply* reply) override;
  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context,
                                     const v1::DescribeRequest* request,
                                     v1::DescribeReply* reply) override;
  grpc::ServerUnaryReactor* Explain(grpc::CallbackServerContext* context,
                                    const v1::ExplainRequest* request,
                                    v1::ExplainReply* reply) override;
  grpc::ServerUnaryReactor* Matrix(grpc::CallbackServerContext* context,
                                   const v1::MatrixRequest* request,
                                   v1::MatrixReply* reply) override;
  grpc::ServerUnaryReactor* Denials(grpc::CallbackServerContext* context,
                                    const v1::DenialsRequest* request,
                                    v1::DenialsReply* reply) override;
  grpc::ServerUnaryReactor* Grants(grpc::CallbackServerContext* context,
                                   const v1::GrantsRequest* request,
                                   v1::GrantsReply* reply) override;
  grpc::ServerUnaryReactor* Revoke(grpc::CallbackServerContext* context,
                                   const v1::RevokeRequest* request,
                                   v1::RevokeReply* reply) override;
  grpc::ServerUnaryReactor* Reload(grpc::CallbackServerContext* context,
                                   const v1::ReloadRequest* request,
                                   v1::ReloadReply* reply) override;
  grpc::ServerUnaryReactor* Status(grpc::CallbackServerContext* context,
                                   const v1::StatusRequest* request,
                                   v1::StatusReply* reply) override;
  grpc::ServerUnaryReactor* Metrics(grpc::CallbackServerContext* context,
                                    const v1::MetricsRequest* request,
                                    v1::MetricsReply* reply) override;
  grpc::ServerUnaryReactor* Activity(grpc::CallbackServerContext* context,
                                     const v1::ActivityRequest* request,
                                     v1::ActivityReply* reply) override;
  grpc::ServerWriteReactor<v1::Event>* Watch(
      grpc::CallbackServerContext* context,
      const v1::WatchRequest* request) override;
  grpc::ServerWriteReactor<v1::TraceEvent>* Trace(
      grpc::CallbackServerContext* context,
      const v1::TraceRequest* request) override;

 private:
  // Runs `handler(session, answer)` on the loop's thread.
  template <typename Reply, typename Handler>
  grpc::ServerUnaryReactor* Run(grpc::CallbackServerContext* context,
                                Reply* reply, Handler handler);

  Shared shared_;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_CONTROL_CALLS_H_
