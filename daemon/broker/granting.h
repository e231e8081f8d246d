// Granting: from a request that names a program to fds that are on their way,
// and back to a closed gate.
//
// Everything here runs on the loop's thread. From a full pool, Acquire touches
// no disk, opens no object, and waits neither for the verifier nor for the
// loader.

#ifndef DAEMON_BROKER_GRANTING_H_
#define DAEMON_BROKER_GRANTING_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "bpfgrant/v1/messages.pb.h"
#include "daemon/broker/audit.h"
#include "daemon/broker/denials.h"
#include "daemon/broker/event_loop.h"
#include "daemon/broker/executables.h"
#include "daemon/broker/gates.h"
#include "daemon/broker/keeping.h"
#include "daemon/broker/ledger.h"
#include "daemon/broker/loader_client.h"
#include "daemon/broker/pool.h"
#include "daemon/broker/remains.h"
#include "daemon/broker/session.h"
#include "daemon/broker/snapshot.h"
#include "daemon/broker/value_loads.h"
#include "daemon/broker/watchers.h"
#include "daemon/mitigations.h"

namespace bpfgrant::broker {

// What goes to the client: the reply and the fds beside it.
struct Delivered {
  v1::AcquireReply reply;
  std::vector<UniqueFd> fds;
};

class Granting {
 public:
  // Called exactly once, at once or later; never after Stop.
  using Answer = absl::AnyInvocable<void(absl::StatusOr<Delivered>)>;

  struct Parts {
    EventLoop& loop;
    LoaderClient& loader;
    Gates& gates;
    Pool& pool;
    Ledger& ledger;
    Remains& remains;
    Watchers& watchers;
    Audit& audit;
    Executables& executables;
    Keeping& keeping;
    const daemon::Mitigations& mitigations;
    uint32_t grants_per_session;
    // nullptr once the session is over.
    std::function<Session*(uint64_t)> find_session;
  };

  explicit Granting(Parts parts) : parts_(std::move(parts)) {}

  // Catalog and policy from now on. Ends grants whose program is gone; returns
  // how many. Those that the policy would not give any more go on.
  uint32_t SetSnapshot(std::shared_ptr<const Snapshot> snapshot);
  const Snapshot& snapshot() const { return *snapshot_; }
  std::shared_ptr<const Snapshot> shared_snapshot() const { return snapshot_; }
  // The live grants that the policy in force would not give.
  std::vector<uint64_t> NotAllowed() const;
  // Calls `done` once it is known of all who hold grants what they execute, as
  // far as the policy in force asks for it. Of whom that takes longer than
  // kLearnDeadline it is not known, whatever was before.
  void LearnExecutables(absl::AnyInvocable<void()> done);

  // Whether what `session` executes has to be read before it is decided if it
  // may have `program`.
  bool HasToLook(const Session& session, std::string_view program) const;
  // The same of any program.
  bool HasToLook(const Session& session) const;
  // Reads it, and calls `then` with the session, or with why not: it has ended,
  // or too much is under way for it or its user.
  void Look(Session& session,
            absl::AnyInvocable<void(absl::StatusOr<Session*>)> then);

  const Denials& denials() const { return denials_; }
  const daemon::Mitigations& mitigations() const { return parts_.mitigations; }

  // Takes a program for `session`. On the broker socket the fds come with the
  // answer; over gRPC (`claim_later`) the grant waits for Claim. `fds` are what
  // came with the request. Where the quota is used up and some of it by what
  // has ended, the answer waits for that to be gone, at most kRoomDeadline.
  void Acquire(Session& session, const v1::AcquireRequest& request,
               std::vector<UniqueFd> fds, bool claim_later, Answer answer);
  void Claim(Session& session, const v1::ClaimRequest& request,
             std::vector<UniqueFd> fds, Answer answer);
  // `answer` is called at once, unless the request wants to wait.
  void Release(
      Session& session, const v1::ReleaseRequest& request,
      absl::AnyInvocable<void(absl::StatusOr<v1::ReleaseReply>)> answer);

  // The answer that hands a grant over is on its way.
  void Sent(uint64_t grant);
  // What a frame that came once before, to an earlier daemon, was granted and
  // not sent. nullopt: nothing. REASON_OUT_OF_ORDER: its answer was sent.
  std::optional<absl::StatusOr<Delivered>> DeliverAgain(Session& session);
  // Of what was granted and perhaps not sent: what the client holds was, and
  // what it neither holds nor awaits, by the frame's number, ends.
  void SettleUnsent(Session& session, const absl::btree_set<uint64_t>& awaited,
                    const absl::btree_set<uint64_t>& held);
  // A grant that an earlier broker committed, under its old id.
  void Restore(Session& session, Grant grant);

  // Closes the gate, tells the owner and those who watch; what it counted for
  // is given back once the kernel has nothing of it. Nothing happens if there
  // is no such grant.
  void End(uint64_t grant, v1::Reason reason);
  // All that a session holds or waits for. The session is not told.
  void EndSession(Session& session, v1::Reason reason);

  // What somebody with that verdict who wants `wanted` gets; never ANY. A
  // refusal if none will do.
  absl::StatusOr<v1::Delivery> ChooseDelivery(const Program& program,
                                              const v1::Verdict& verdict,
                                              v1::Delivery wanted) const;

 private:
  // What comes with an AcquireRequest.
  struct Company {
    std::vector<UniqueFd> fds;
    bool claim_later = false;
    Answer answer;
    uint64_t request = 0;  // Session::request
  };
  // A request that nothing speaks against.
  struct Wanted {
    const Program* program = nullptr;
    v1::Verdict verdict;
    v1::Delivery delivery = v1::DELIVERY_ANY;
    std::vector<int> handles;
    // Those that are not the defaults: of load time, and of run time.
    std::vector<v1::ParameterValue> constants, entries;
  };

  // granting_check.cc.
  absl::StatusOr<Wanted> Check(const Session& session,
                               const v1::AcquireRequest& request,
                               size_t fd_count, bool claim_later) const;
  // Fills the values of parameters, which they must be allowed.
  absl::Status CheckParameters(const v1::AcquireRequest& request,
                               Wanted& wanted) const;
  absl::Status CheckQuota(const Session& session,
                          const v1::AcquireRequest& request,
                          const Wanted& wanted) const;
  absl::Status CheckAmounts(const Session& session,
                            const v1::AcquireRequest& request,
                            const Wanted& wanted) const;
  // Who asks for what.
  static v1::GrantInfo InfoOf(const Session& session,
                              const v1::AcquireRequest& request);
  // Takes what the rule's amounts allow so often, and of a load also what
  // values of parameters allow. REASON_RATE.
  absl::Status SpendAcquire(const v1::GrantInfo& info);
  absl::Status SpendLoad(const v1::GrantInfo& info, const Choice& choice);
  // Keeps in mind what was denied, and tells once what would have been.
  void NoteVerdict(const Session& session, const std::string& program,
                   const v1::Verdict& verdict);
  // The rule whose quota is used up, in part by what has ended, if that is what
  // `refusal` is about.
  std::optional<std::string> RuleToWaitFor(const Session& session,
                                           const v1::AcquireRequest& request,
                                           const absl::Status& refusal) const;
  // Whether as many requests of it, or of its user, are under way as may be.
  bool IsBusy(const Session& session) const;
  absl::Status CheckRelease(const Session& session,
                            const v1::ReleaseRequest& request) const;
  // What has to come with a request for `delivery`, and what must not.
  static absl::Status CheckCompany(v1::Delivery delivery, v1::Delivery wanted,
                                   size_t fd_count, std::optional<int> ring);
  // Of so many fds, how many are no parameter's.
  static absl::StatusOr<size_t> CountUnnamed(
      const std::vector<v1::ParameterValue>& entries, size_t fd_count);
  template <typename Request>
  static std::optional<int> RingOf(const Request& request) {
    if (!request.has_ring()) return std::nullopt;
    return request.ring();
  }

  // What a client wants its program attached to, if anything: a socket or a
  // device, or a ring.
  struct Target {
    UniqueFd fd;
    std::vector<UniqueFd> files;  // parameters
    std::optional<int> ring;      // its number in the client
  };

  // TryAcquire, once it is known what the client executes if it hangs on that.
  void LookAndTry(Session& session, const v1::AcquireRequest& request,
                  Company company,
                  std::optional<Remains::Clock::time_point> until);
  // Takes it, refuses it, or waits for quota to come back: until `until`, or as
  // long as the first attempt may.
  void TryAcquire(Session& session, const v1::AcquireRequest& request,
                  Company company,
                  std::optional<Remains::Clock::time_point> until);
  void AwaitRoom(const Session& session, const std::string& rule,
                 const v1::AcquireRequest& request, Company company,
                 Remains::Clock::time_point until);
  void Take(Session& session, const v1::AcquireRequest& request,
            Company company, Wanted wanted);
  void OnInstance(uint64_t grant, Target target, bool claim_later,
                  absl::StatusOr<Instance> instance, Answer answer);
  // What came beside a request: fds that `entries` name, in their order, and
  // the one that is left.
  static Target TargetOf(const std::vector<v1::ParameterValue>& entries,
                         std::vector<UniqueFd> fds, std::optional<int> ring);
  // Writes its parameters, if there are any for maps, and hands it over.
  void Finish(Grant& grant, Target target, Answer answer);
  void HandOver(Grant& grant, Target target, Answer answer);
  void AttachFd(Grant& grant, Target target, Answer answer);
  void AttachRing(Grant& grant, const Target& target, Answer answer);
  void Enroll(Grant& grant, Answer answer);
  // Sends the session's process along.
  void AttachToProcess(Grant& grant, daemon::LoaderRequest request,
                       Answer answer);
  // Sends any of them to the loader, and delivers once it has answered.
  void Attach(const Grant& grant, daemon::LoaderRequest request,
              std::vector<UniqueFd> fds, Answer answer);
  Delivered Deliver(Grant& grant);
  // Out of the instance's fds, which are closed.
  static std::vector<UniqueFd> TakeHandles(Grant& grant);
  void AwaitClaim(Session& session, Grant& grant);
  v1::AcquireReply Describe(const Grant& grant) const;
  // Takes a grant out of session and ledger, with its gate closed.
  Grant Remove(uint64_t grant, v1::Reason why);
  void Deny(const v1::GrantInfo& wanted, const absl::Status& why,
            Answer answer);
  // Remove and Deny, of one that cannot be handed over.
  void Abandon(uint64_t grant, const absl::Status& why, Answer answer);
  // Whether what has ended counts until it is gone.
  bool CountsUntilGone() const {
    return parts_.mitigations.quota_until_gone && parts_.remains.looks();
  }
  // The session is over: the maps that its grants shared count for themselves.
  void GiveUpSharedMaps(Session& session, v1::Reason why);

  // Copies of what the session has of the program's SCOPE_SESSION maps so far.
  std::vector<UniqueFd> SharedMaps(Session& session, const Program& program);
  void KeepShared(uint64_t grant, uint64_t session, const std::string& identity,
                  absl::StatusOr<Instance>& instance);

  // Whether it is known by now, if it need not be read each time.
  bool KnowsEnough(const Session& session) const;
  // Of a user's processes, the sessions of each.
  using Processes = std::vector<std::vector<uint64_t>>;
  // What was known once of those who hold grants counts no more where it has to
  // be looked at; of each user, those.
  std::vector<Processes> ForgetExecutables();
  struct Learning;
  // `processes` are what is left of a user.
  void LearnNext(const std::shared_ptr<Learning>& learning,
                 Processes processes);

  // One more, or one fewer, request of that session waits for the loader.
  void CountWaiting(uint64_t session, uid_t uid, int change);

  Parts parts_;
  Denials denials_;
  ValueLoads value_loads_;
  absl::flat_hash_map<uid_t, size_t> waiting_of_user_;
  std::shared_ptr<const Snapshot> snapshot_ = std::make_shared<Snapshot>();
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_GRANTING_H_
