// From a frame to the one handler of its call, and back to a frame.

#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/broker/connection.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant::broker {

void Connection::Refused(uint64_t request, const absl::Status& status) {
  v1::ServerFrame frame;
  *frame.mutable_refusal() = RefusalOf(status);
  parts_.service.CountRefusal(frame.refusal().reason());
  Send(request, frame);
}

template <typename Reply>
void Connection::Finish(uint64_t request, const absl::StatusOr<Reply>& reply,
                        Reply* (v1::ServerFrame::*field)()) {
  if (!reply.ok()) {
    Refused(request, reply.status());
    return;
  }
  v1::ServerFrame frame;
  *(frame.*field)() = *reply;
  Send(request, frame);
}

template <typename Reply>
Answer<Reply> Connection::Later(uint64_t request,
                                Reply* (v1::ServerFrame::*field)()) {
  return [find = parts_.find, id = session_.id, request,
          field](absl::StatusOr<Reply> reply) {
    if (Connection* connection = find(id)) {
      connection->Finish(request, reply, field);
    }
  };
}

Answer<Delivered> Connection::LaterDelivered(uint64_t request) {
  return [find = parts_.find, id = session_.id, request,
          read = last_read_](absl::StatusOr<Delivered> delivered) {
    // With nobody there the fds are closed here; the grant ended with the
    // session.
    if (Connection* connection = find(id)) {
      connection->FinishDelivered(request, read, std::move(delivered));
    }
  };
}

void Connection::FinishDelivered(uint64_t request,
                                 std::chrono::steady_clock::time_point read,
                                 absl::StatusOr<Delivered> delivered) {
  if (!delivered.ok()) {
    Refused(request, delivered.status());
    return;
  }
  v1::ServerFrame frame;
  *frame.mutable_acquire() = std::move(delivered->reply);
  const uint64_t grant = frame.acquire().grant();
  Send(request, frame, std::move(delivered->fds), grant);
  parts_.service.CountAcquire(std::chrono::steady_clock::now() - read,
                              acquiring_ != request);
}

void Connection::DispatchAcquire(const v1::ClientFrame& frame,
                                 std::vector<UniqueFd> fds) {
  if (session_.resent) {
    auto again = parts_.granting.DeliverAgain(session_);
    if (again.has_value()) {
      LaterDelivered(frame.request())(*std::move(again));
      return;
    }
  }
  if (!HasShareFor(kMaxFdsPerGrant)) {
    Refused(frame.request(),
            TooManyUnread(parts_.unread_fds.Of(session_.peer.subject.uid)));
    return;
  }
  Answer<Delivered> answer = LaterDelivered(frame.request());
  // What is answered before the handler returns was ready.
  acquiring_ = frame.request();
  if (frame.has_acquire()) {
    parts_.service.Acquire(session_, frame.acquire(), std::move(fds),
                           /*claim_later=*/false, std::move(answer));
  } else {
    parts_.service.Claim(session_, frame.claim(), std::move(fds),
                         std::move(answer));
  }
  acquiring_ = 0;
}

void Connection::Watch(uint64_t request) {
  if (session_.watch != 0) {
    Refused(request, Refuse(v1::REASON_OUT_OF_ORDER, "it watches already"));
    return;
  }
  if (parts_.watchers.Of(session_.peer.subject.uid) >= kMaxWatchersPerUser) {
    Refused(request,
            Refuse(v1::REASON_BUSY, "enough watch for this user already"));
    return;
  }
  session_.watch = parts_.watchers.Add(session_.peer.subject.uid,
                                       session_.administrator, session_.notify);
  parts_.keeping.Update(session_);
  v1::ServerFrame frame;
  frame.mutable_watch();
  Send(request, frame);
}

void Connection::Trace(uint64_t request, const v1::TraceRequest& trace) {
  if (session_.trace != 0) {
    Refused(request, Refuse(v1::REASON_OUT_OF_ORDER, "it traces already"));
    return;
  }
  const absl::StatusOr<uint64_t> reader = parts_.service.Trace(
      session_, trace, [this](const v1::TraceEvent& event) {
        if (event.kind() == v1::TraceEvent::KIND_ENDED) {
          session_.trace = 0;
          session_.traced = 0;
          parts_.keeping.Update(session_);
        } else if (!outgoing_.empty()) {
          return false;
        }
        v1::ServerFrame frame;
        *frame.mutable_trace_event() = event;
        Send(0, frame);
        return true;
      });
  if (!reader.ok()) {
    Refused(request, reader.status());
    return;
  }
  session_.trace = *reader;
  session_.traced = trace.grant();
  parts_.keeping.Update(session_);
  v1::ServerFrame frame;
  frame.mutable_trace();
  Send(request, frame);
}

void Connection::Dispatch(const v1::ClientFrame& frame,
                          std::vector<UniqueFd> fds) {
  using Out = v1::ServerFrame;
  Service& service = parts_.service;
  const uint64_t request = frame.request();
  if (frame.has_acquire() || frame.has_claim()) {
    DispatchAcquire(frame, std::move(fds));
    return;
  }
  if (!fds.empty()) {
    Refused(request, Refuse(v1::REASON_UNEXPECTED_FDS,
                            "fds beside a call that takes none"));
    return;
  }
  switch (frame.body_case()) {
    case v1::ClientFrame::kRelease:
      service.Release(session_, frame.release(),
                      Later(request, &Out::mutable_release));
      return;
    case v1::ClientFrame::kList:
      service.List(session_, frame.list(), Later(request, &Out::mutable_list));
      return;
    case v1::ClientFrame::kDescribe:
      service.Describe(session_, frame.describe(),
                       Later(request, &Out::mutable_describe));
      return;
    case v1::ClientFrame::kExplain:
      service.Explain(session_, frame.explain(),
                      Later(request, &Out::mutable_explain));
      return;
    case v1::ClientFrame::kMatrix:
      Finish(request, service.Matrix(session_, frame.matrix()),
             &Out::mutable_matrix);
      return;
    case v1::ClientFrame::kDenials:
      Finish(request, service.Denials(session_, frame.denials()),
             &Out::mutable_denials);
      return;
    case v1::ClientFrame::kGrants:
      Finish(request, service.Grants(session_, frame.grants()),
             &Out::mutable_grants);
      return;
    case v1::ClientFrame::kStatus:
      Finish(request, service.Status(session_, frame.status()),
             &Out::mutable_status);
      return;
    case v1::ClientFrame::kMetrics:
      service.Metrics(session_, frame.metrics(),
                      Later(request, &Out::mutable_metrics));
      return;
    case v1::ClientFrame::kActivity:
      service.Activity(session_, frame.activity(),
                       Later(request, &Out::mutable_activity));
      return;
    case v1::ClientFrame::kRotate:
      service.Rotate(session_, frame.rotate(),
                     Later(request, &Out::mutable_rotate));
      return;
    case v1::ClientFrame::kRevoke:
      service.Revoke(session_, frame.revoke(),
                     Later(request, &Out::mutable_revoke));
      return;
    case v1::ClientFrame::kReload:
      service.Reload(session_, frame.reload(),
                     Later(request, &Out::mutable_reload));
      return;
    case v1::ClientFrame::kTrace:
      Trace(request, frame.trace());
      return;
    case v1::ClientFrame::kWatch:
      Watch(request);
      return;
    default:
      // OnFrame has taken the others.
      return;
  }
}

}  // namespace bpfgrant::broker
