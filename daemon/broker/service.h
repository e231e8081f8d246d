// One handler for each call of the service, whichever socket it came by.
//
// Handlers trust the session they are given for who is calling, and the request
// for nothing.

#ifndef DAEMON_BROKER_SERVICE_H_
#define DAEMON_BROKER_SERVICE_H_

#include <array>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "bpfgrant/v1/denials.pb.h"
#include "bpfgrant/v1/messages.pb.h"
#include "bpfgrant/v1/metrics.pb.h"
#include "daemon/broker/activity.h"
#include "daemon/broker/grace_period.h"
#include "daemon/broker/granting.h"
#include "daemon/broker/histogram.h"
#include "daemon/broker/open_metrics.h"
#include "daemon/broker/rotations.h"
#include "daemon/broker/session.h"
#include "daemon/broker/tracer.h"

namespace bpfgrant::broker {

// Called exactly once, at once or later, on the loop's thread.
template <typename Reply>
using Answer = absl::AnyInvocable<void(absl::StatusOr<Reply>)>;

class Service {
 public:
  struct Parts {
    EventLoop& loop;
    LoaderClient& loader;
    Gates& gates;
    Pool& pool;
    Ledger& ledger;
    Watchers& watchers;
    Audit& audit;
    Granting& granting;
    Executables& executables;
    GracePeriod& grace_period;
    Rotations& rotations;
    // What Status says that nobody here counts.
    std::function<void(v1::StatusReply&)> fill_status;
    // Told of each reload that begins and ends, for the service manager.
    std::function<void(bool reloading)> on_reload;
    // nullptr: none any more.
    std::function<Session*(uint64_t)> find_session;
    // nullptr where this kernel has no io_uring loops.
    Tracer* tracer = nullptr;
  };

  explicit Service(Parts parts)
      : parts_(std::move(parts)), activity_(parts_.loader, parts_.ledger) {}

  // Over gRPC (`claim_later`) the answer brings no fds.
  void Acquire(Session& session, const v1::AcquireRequest& request,
               std::vector<UniqueFd> fds, bool claim_later,
               Answer<Delivered> answer);
  void Claim(Session& session, const v1::ClaimRequest& request,
             std::vector<UniqueFd> fds, Answer<Delivered> answer);
  void Release(Session& session, const v1::ReleaseRequest& request,
               Answer<v1::ReleaseReply> answer);
  void Rotate(Session& session, const v1::RotateRequest& request,
              Answer<v1::RotateReply> answer);
  // Answer at once, unless rules hang on what the caller executes.
  void List(Session& session, const v1::ListRequest& request,
            Answer<v1::ListReply> answer);
  void Describe(Session& session, const v1::DescribeRequest& request,
                Answer<v1::DescribeReply> answer);
  void Explain(Session& session, const v1::ExplainRequest& request,
               Answer<v1::ExplainReply> answer);
  absl::StatusOr<v1::MatrixReply> Matrix(
      const Session& session, const v1::MatrixRequest& request) const;
  absl::StatusOr<v1::DenialsReply> Denials(
      const Session& session, const v1::DenialsRequest& request) const;
  absl::StatusOr<v1::GrantsReply> Grants(
      const Session& session, const v1::GrantsRequest& request) const;
  absl::StatusOr<v1::StatusReply> Status(
      const Session& session, const v1::StatusRequest& request) const;
  // For administrators all of it, which the loader has to be asked for.
  void Metrics(const Session& session, const v1::MetricsRequest& request,
               Answer<v1::MetricsReply> answer);
  void Activity(const Session& session, const v1::ActivityRequest& request,
                Answer<v1::ActivityReply> answer);
  // Answers when no run of what was revoked is under way any more, or after
  // kRevokeDeadline with `running`.
  void Revoke(Session& session, const v1::RevokeRequest& request,
              Answer<v1::RevokeReply> answer);
  void Reload(Session& session, const v1::ReloadRequest& request,
              Answer<v1::ReloadReply> answer);
  // The same on the administrator's signal, which enforces nothing.
  void Reload(Answer<v1::ReloadReply> answer);

  // `sink` gets what the loop of a grant does, until EndTrace or, at last, the
  // grant's end. Returns the reader's number.
  absl::StatusOr<uint64_t> Trace(const Session& session,
                                 const v1::TraceRequest& request,
                                 Tracer::Sink sink);
  void EndTrace(uint64_t reader);

  // Answers every Revoke that still waits, with `running`, and every Rotate.
  void Stop();

  // Counts a call that was refused, for Status.
  void CountRefusal(v1::Reason reason);
  // An Acquire that was answered with a grant, so long after its frame was
  // read; whether the loader had to do something for it.
  void CountAcquire(std::chrono::nanoseconds took, bool asked_loader) {
    (asked_loader ? acquires_cold_ : acquires_warm_).Record(took);
  }
  // "ok", or why the last reload was rejected.
  const std::string& last_reload() const { return last_reload_; }

 private:
  struct Revocation {
    Answer<v1::RevokeReply> answer;
    v1::RevokeReply reply;
    EventLoop::Source deadline;
  };
  void FinishRevocation(uint64_t id, bool running);

  static absl::Status CheckAdministrator(const Session& session);

  // Calls `handler` once it is known what the caller executes, as far as it
  // matters.
  template <typename Request, typename Reply>
  void WhenKnown(Session& session, const Request& request,
                 absl::StatusOr<Reply> (Service::*handler)(const Session&,
                                                           const Request&)
                     const,
                 Answer<Reply> answer);
  absl::StatusOr<v1::ListReply> ListKnown(const Session& session,
                                          const v1::ListRequest& request) const;
  absl::StatusOr<v1::DescribeReply> DescribeKnown(
      const Session& session, const v1::DescribeRequest& request) const;
  absl::StatusOr<v1::ExplainReply> ExplainCaller(
      const Session& session, const v1::ExplainRequest& request) const;
  void ExplainProcess(Session& session, const v1::ExplainRequest& request,
                      Answer<v1::ExplainReply> answer);
  v1::ExplainReply ExplainSubject(const Session& session,
                                  const v1::ExplainRequest& request,
                                  const policy::Subject& subject) const;
  static absl::Status CheckExplain(const Session& session,
                                   const v1::ExplainRequest& request);
  // What an Explain says beyond the verdict: quota, delivery. `program` is
  // nullptr if there is none.
  void ExplainAllowed(const policy::Subject& subject, const Program* program,
                      v1::ExplainReply& reply) const;
  v1::ProgramSummary Summarize(const Program& program,
                               const policy::Subject& subject) const;
  // service_metrics.cc. `activity` is nullptr for who is no administrator.
  v1::MetricsReply WriteMetrics(const std::string& after,
                                const ActivityReport* activity) const;
  void WriteAggregates(OpenMetrics& text) const;
  void WritePool(OpenMetrics& text) const;
  void WriteLatencies(OpenMetrics& text) const;
  void StartReload();
  void FinishReload(absl::StatusOr<v1::ReloadReply> reply);
  void ReadSnapshot(absl::StatusOr<LoaderClient::Reply> reply);
  void TakeSnapshot(absl::StatusOr<std::shared_ptr<const Snapshot>> snapshot);
  // Ends what the policy in force would not give, or tells it.
  void EnforceOrTell(v1::ReloadReply& reply);

  Parts parts_;
  std::array<uint64_t, v1::Reason_ARRAYSIZE> refused_{};
  Histogram acquires_warm_, acquires_cold_, reloads_;
  uint64_t rejected_reloads_ = 0;
  std::chrono::steady_clock::time_point reload_began_{};
  broker::Activity activity_;
  std::string last_reload_ = "ok";
  // Revocations that wait for the grace period.
  absl::btree_map<uint64_t, Revocation> revoking_;
  uint64_t next_revocation_ = 1;
  // Who waits for the reload under way, and who came while it was: for them it
  // has to begin again.
  std::vector<Answer<v1::ReloadReply>> reloading_;
  std::vector<Answer<v1::ReloadReply>> reload_next_;
  // Whether one of them wants the policy enforced on what is granted already.
  bool enforcing_ = false;
  bool enforce_next_ = false;
  // A large catalog takes longer to parse than anybody should wait. Last, so
  // that it ends first.
  std::jthread snapshot_reader_;
};

// Catalog and policy in words: how many programs, how many unavailable and why.
v1::ReloadReply Summarize(const Snapshot& snapshot);

// Logs what of them is not as its author will have meant it: programs that are
// not available, rules that name executables if `no_executables` says why those
// are never known.
void WarnOf(const v1::ReloadReply& summary, const policy::Rules& rules,
            const std::string& no_executables);

template <typename Request, typename Reply>
void Service::WhenKnown(Session& session, const Request& request,
                        absl::StatusOr<Reply> (Service::*handler)(
                            const Session&, const Request&) const,
                        Answer<Reply> answer) {
  if (!parts_.granting.HasToLook(session)) {
    answer((this->*handler)(session, request));
    return;
  }
  parts_.granting.Look(
      session, [this, request, handler, answer = std::move(answer)](
                   absl::StatusOr<Session*> looked) mutable {
        answer(looked.ok() ? (this->*handler)(**looked, request)
                           : absl::StatusOr<Reply>(looked.status()));
      });
}

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_SERVICE_H_
