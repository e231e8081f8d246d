// What outlives the broker: the ledger's file, and copies of fds in the service
// manager's store. What is neither there nor there ends with this process.
//
// It decides nothing about what it keeps.

#ifndef DAEMON_BROKER_KEEPING_H_
#define DAEMON_BROKER_KEEPING_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "bpfgrant/daemon/record.pb.h"
#include "daemon/broker/allowance.h"
#include "daemon/broker/event_loop.h"
#include "daemon/broker/ledger_file.h"
#include "daemon/broker/pool.h"
#include "daemon/broker/session.h"
#include "daemon/fd_store.h"

namespace bpfgrant::broker {

class Keeping {
 public:
  // `found` is what an earlier broker left in the store. A ledger's file among
  // it is taken up, else a new one is made. Without a store nothing is kept.
  // `limits_users` off lets one user have the service manager to itself: for
  // tests only.
  Keeping(EventLoop& loop, daemon::FdStore store, daemon::StoredFds found,
          bool limits_users = true);

  // Sessions of one user that are put into the store, at once and a second
  // after that: each is work for the service manager, which others need, too.
  static constexpr double kKeptAtOnce = 2048;
  static constexpr double kKeptPerSecond = 50;

  // Whether anything outlives a restart; if not, why.
  bool keeps() const { return file_.has_value(); }
  const std::string& why_not() const { return why_not_; }
  LedgerFile* file() { return file_.has_value() ? &*file_ : nullptr; }
  size_t stored() const { return store_.size(); }

  // What an earlier broker left, each once.
  std::vector<LedgerFile::Found> TakeRecords();
  std::vector<UniqueFd> TakeFound(const std::string& name);
  // Nobody took it: the store lets go of it.
  void ForgetTheRest();

  // Waits until the service manager has what is queued, at most so long.
  void Settle(std::chrono::milliseconds patience);

  // A session that is open. It is kept if there is room, and if its user has
  // not had too many sessions of late; it may be asked again. False: it is not.
  bool Keep(Session& session, int socket);
  // What is on record of it has changed.
  void Update(Session& session);
  void Forget(Session& session);

  // A ready instance, or what is left of one that is not delivered yet.
  void Keep(const Instance& instance);
  void KeepSharedMaps(const Instance& instance);
  void ForgetInstance(Gates::Gate gate);
  void ForgetSharedMaps(Gates::Gate gate);

 private:
  void Put(const std::string& name, const std::vector<UniqueFd>& fds);
  void Remove(const std::string& name);
  // Sends what is queued once the service manager has room for it.
  void Watch();

  EventLoop& loop_;
  const bool limits_users_;
  daemon::FdStore store_;
  daemon::StoredFds found_;
  std::optional<LedgerFile> file_;
  std::string why_not_;
  EventLoop::Source writable_;
  absl::flat_hash_map<uid_t, Allowance> allowances_;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_KEEPING_H_
