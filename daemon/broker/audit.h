// The audit trail: what of all that happens is put on record, and how much of
// one user's.
//
// A user who makes many records must not drown those of others, nor the
// journal: each has an allowance, and what goes beyond is counted and told as a
// number. A grant whose beginning is on record has its end there, too.

#ifndef DAEMON_BROKER_AUDIT_H_
#define DAEMON_BROKER_AUDIT_H_

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "bpfgrant/v1/audit.pb.h"
#include "bpfgrant/v1/messages.pb.h"
#include "daemon/broker/allowance.h"
#include "daemon/broker/event_loop.h"
#include "daemon/broker/session.h"
#include "daemon/broker/snapshot.h"
#include "daemon/mitigations.h"

namespace bpfgrant::broker {

class Audit {
 public:
  using Sink = std::function<void(v1::AuditRecord)>;

  Audit(EventLoop& loop, const daemon::Mitigations& mitigations, Sink sink)
      : loop_(loop), mitigations_(mitigations), sink_(std::move(sink)) {}

  // The catalog and policy in force from now on: what is new or has changed.
  // What is in a large one goes on record bit by bit, between other work.
  void CatalogLoaded(std::shared_ptr<const Snapshot> snapshot);
  void ReloadRejected(const absl::Status& why);

  // Whether it went on record; then GrantEnded is to be told of its end.
  bool GrantBegan(const v1::GrantInfo& grant);
  void GrantEnded(const v1::GrantInfo& grant, v1::Reason why);
  // `wanted` says who asked for what; there is no grant.
  void GrantDenied(const v1::GrantInfo& wanted, const absl::Status& why);
  // An administrator's act: `what` is which grants, `count` how many there
  // were.
  void GrantsRevoked(const Session& by, const std::string& what,
                     uint64_t count);

  // Puts the numbers of what was not listed on record, and the rest of a
  // catalog.
  void Flush();

 private:
  // Of one user.
  struct Account {
    Allowance grants;
    Allowance denials;
    uint64_t not_listed = 0;
  };

  // A catalog on its way to the record.
  struct Reading {
    std::shared_ptr<const Snapshot> snapshot;
    Snapshot::Programs::const_iterator next;
    // What was before and has not been met again.
    absl::btree_map<std::string, std::string> before;
    uint64_t available = 0;
  };

  // One batch of it; whether there is more.
  bool ReadSome();
  void ReadOn();
  void ReadAll();

  // Whether `uid` may have so many records more; if not, they are counted.
  bool Spend(Allowance Account::*allowance, uid_t uid, uint32_t records);

  EventLoop& loop_;
  const daemon::Mitigations& mitigations_;
  Sink sink_;
  absl::flat_hash_map<uid_t, Account> accounts_;
  EventLoop::Source flush_;
  // By name, as of the last CatalogLoaded: which entry, and whether it could be
  // granted.
  absl::btree_map<std::string, std::string> programs_;
  std::optional<Reading> reading_;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_AUDIT_H_
