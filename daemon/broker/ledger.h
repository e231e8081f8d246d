// The ledger: who holds what, and how much of it. A grant that has ended counts
// on for as long as the kernel has something of it.
//
// With a file it outlives the broker: what was committed is found again.

#ifndef DAEMON_BROKER_LEDGER_H_
#define DAEMON_BROKER_LEDGER_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "bpfgrant/daemon/record.pb.h"
#include "bpfgrant/v1/messages.pb.h"
#include "daemon/broker/charges.h"
#include "daemon/broker/event_loop.h"
#include "daemon/broker/gates.h"
#include "daemon/broker/ledger_file.h"
#include "daemon/broker/pool.h"
#include "daemon/broker/snapshot.h"
#include "policy/policy.h"

namespace bpfgrant::broker {

// One grant, from the moment it counts to the moment its gate is closed.
struct Grant {
  v1::GrantInfo info;
  Instance instance;  // its fds: until they are delivered, then none
  // Which handles the client asked for, as indices into the catalog's.
  std::vector<int> handles;
  // Parameters to be written into its maps, until it is delivered.
  std::vector<v1::ParameterValue> entries;
  // Its swappable maps, by the bits of its gate's slot.
  std::vector<std::string> swappable;
  bool loaded = false;     // `instance` is there; before, it is being loaded
  uint64_t map_bytes = 0;  // about, of its maps
  bool on_record = false;  // its beginning is in the audit trail
  // As the catalog described it when it was asked for; until it is delivered.
  std::shared_ptr<const Program> program;
  EventLoop::Source claim_deadline;
  // The frame whose answer hands it over, and that answer, until it is on its
  // way; 0: there is none yet, or it came over gRPC.
  uint64_t request = 0;
  std::optional<v1::AcquireReply> reply;
  // The last frame that turned its maps over, and which they are since.
  uint64_t rotated_by = 0;
  uint64_t swaps = 0;
  // In the ledger's file; none: it is not kept over a restart.
  std::optional<LedgerFile::Place> record;
};

class Ledger {
 public:
  // What is committed is written to `file` from now on, whose numbers are used;
  // nullptr: nowhere.
  void SetFile(LedgerFile* file) { file_ = file; }
  bool has_file() const { return file_ != nullptr; }

  // Writes what is known of a grant by now, so that it outlives the broker.
  // False: it does not.
  bool Commit(Grant& grant);
  // Its answer is on its way: nobody has to send it again.
  void MarkSent(Grant& grant);
  // Maps that a session's grants share: `like` is the grant they were made for,
  // with their numbers.
  std::optional<LedgerFile::Place> CommitShared(const v1::GrantInfo& like,
                                                const std::string& identity,
                                                const Instance& instance);
  void Forget(std::optional<LedgerFile::Place>& record);

  // Enters what an earlier broker had committed, under its old id.
  Grant& Restore(Grant grant);
  void RestoreRetired(v1::GrantInfo info, uint64_t map_bytes,
                      std::optional<LedgerFile::Place> record);

  // Enters a grant under the next id, which is set in its info. Valid until
  // Remove.
  Grant& Add(Grant grant);
  // nullptr: no such grant.
  Grant* Find(uint64_t id);
  // Takes it out, and it counts no more; `id` must be there.
  Grant Remove(uint64_t id);

  // Takes it out of those that live; it counts under its id until Return.
  Grant Retire(uint64_t id, v1::Reason why);
  // Enters something that ended with `like` and counts as one grant more, under
  // an id of its own, which is returned: maps that were made with `gate` and
  // shared.
  uint64_t AddRetired(v1::GrantInfo like, Gates::Gate gate);
  // nullptr: nothing that ended counts under that id.
  const v1::GrantInfo* FindRetired(uint64_t id) const;
  // What the kernel still has of it; nothing happens if it is not there.
  void SetHeld(uint64_t id, const std::string& object);
  // It counts no more; `id` must be there.
  v1::GrantInfo Return(uint64_t id);

  // Charges all that counts, live or not, to the amounts of these rules.
  void SetRules(const policy::Rules& rules);
  const Charges& charges() const { return charges_; }
  Charges& charges() { return charges_; }

  // What counts for `uid` under `rule`, and how much of it has ended.
  uint32_t InUse(const std::string& rule, uid_t uid) const;
  uint32_t RetiredOf(const std::string& rule, uid_t uid) const;
  // Those that live, of one program and in all.
  uint32_t OfProgram(const std::string& program) const;
  size_t size() const { return grants_.size(); }
  size_t retired() const { return retired_.size(); }
  uint64_t total() const { return added_; }

  // Calls `visit` for each grant behind `after`, live or not, by id, until it
  // returns false.
  void ForEach(uint64_t after,
               absl::FunctionRef<bool(const v1::GrantInfo&)> visit) const;
  // The ids of those that live and for which `matches` holds.
  std::vector<uint64_t> Select(
      absl::FunctionRef<bool(const Grant&)> matches) const;

 private:
  using Accounts = absl::flat_hash_map<std::pair<std::string, uid_t>, uint32_t>;

  static void Count(Accounts& accounts, const v1::GrantInfo& info, int change);
  Grant TakeOut(uint64_t id);
  uint64_t NextId();
  void Write(std::optional<LedgerFile::Place>& place,
             const daemon::GrantRecord& record);

  absl::btree_map<uint64_t, Grant> grants_;
  struct Retired {
    v1::GrantInfo info;
    uint64_t map_bytes = 0;
    std::optional<LedgerFile::Place> record;
  };
  absl::btree_map<uint64_t, Retired> retired_;
  LedgerFile* file_ = nullptr;
  Charges charges_;
  Accounts in_use_;      // live and retired
  Accounts retired_of_;  // of them
  absl::flat_hash_map<std::string, uint32_t> of_program_;
  uint64_t next_ = 1;
  uint64_t added_ = 0;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_LEDGER_H_
