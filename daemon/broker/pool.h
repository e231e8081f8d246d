// Ready instances, so that an Acquire waits for nobody.
//
// An instance enters when the loader has loaded it, leaves when it is granted,
// and never comes back. The pool decides what to load next: first what somebody
// waits for, then what is under its target, within the limits of memory and
// fds.

#ifndef DAEMON_BROKER_POOL_H_
#define DAEMON_BROKER_POOL_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "daemon/broker/event_loop.h"
#include "daemon/broker/gates.h"
#include "daemon/broker/histogram.h"
#include "daemon/broker/kept_values.h"
#include "daemon/broker/loader_client.h"
#include "daemon/broker/snapshot.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::broker {

class Keeping;
class Remains;

// What the loader keeps of an instance until it is told of its end.
enum class KeptByLoader {
  kNothing,
  kLoop,     // its structure and its link
  kMaps,     // what a tracing program has of it, and the process
  kEntries,  // maps that parameters go into, until they are there
};

// One loaded copy of a program; of a tracing program, which is loaded once, the
// maps of one grant. Its fds keep the kernel's objects alive.
struct Instance {
  std::string digest;
  Gates::Gate gate;
  // The program, then the handles of the catalog. If the loader keeps something
  // of it, it has the program, and the first is empty.
  std::vector<UniqueFd> fds;
  KeptByLoader kept = KeptByLoader::kNothing;
  // Of the session, if this load made them.
  std::vector<UniqueFd> session_maps;
  // As the kernel calls what this load made.
  std::vector<uint32_t> program_ids;
  std::vector<uint32_t> map_ids;
  // The same of `fds`, in their order (0: there is none), and of those of the
  // session.
  std::vector<uint32_t> fd_ids;
  std::vector<uint32_t> session_map_ids;
};

// Values that one user chose for the parameters of a program that are
// constants; none: the defaults.
struct Choice {
  uid_t uid = 0;
  std::vector<v1::ParameterValue> constants;
};

// Whether the loader has the program, and its fd does not come with an
// instance.
bool HasProgram(KeptByLoader kept);
// Of each one more; invalid where there is none to be had.
std::vector<UniqueFd> CopyFds(const std::vector<UniqueFd>& fds);

struct PoolLimits {
  uint64_t bytes = 0;  // map memory of ready instances, about
  size_t fds = 0;      // of ready instances
};

class Pool {
 public:
  // With an instance whose gate is closed, or why there is none.
  using Taken = absl::AnyInvocable<void(absl::StatusOr<Instance>)>;

  Pool(EventLoop& loop, LoaderClient& loader, Gates& gates, Remains& remains,
       PoolLimits limits, bool reuse_instances, bool values_by_user = true);
  ~Pool();

  // Has what is loaded kept over a restart, until it is discarded. nullptr: it
  // is not.
  void KeepWith(Keeping* keeping) { keeping_ = keeping; }

  // The catalog in force. Ready instances of programs that it does not hold, or
  // holds with another identity, are discarded; so are loads under way.
  void SetCatalog(std::shared_ptr<const Snapshot> snapshot);

  // A ready instance of `program`, without waiting; kUnavailable if there is
  // none just now.
  absl::StatusOr<Instance> TakeReady(const Program& program,
                                     const Choice& choice = {});
  // Loads one for the caller: `taken` is called later, exactly once. The wait
  // is named by `ticket`, for Cancel. REASON_BUSY when too many wait. A load
  // that fails for want of memory or fds is tried again until kLoadDeadline, as
  // long as what clients gave back may bring some.
  // After one for values that are not the defaults, another is kept ready for
  // the same user and values, as long as these are among the latest few.
  // `session_maps` is what the caller's session has of that program already.
  void TakeWhenLoaded(const Program& program, uint64_t ticket,
                      std::vector<UniqueFd> session_maps, Taken taken,
                      const Choice& choice = {});
  // Nobody waits with that ticket any more: its callback gets kCancelled.
  void Cancel(uint64_t ticket);

  // Loads nothing any more.
  void Stop() { stopped_ = true; }

  // Closes the instance's gate for good, drops its fds, and has the loader let
  // go of what it keeps: a loop is taken off its ring. `charge` is given back
  // once nothing is left of it; 0: nobody had it. Without `close_gate` it only
  // pretends to do the first: for tests.
  void Discard(Instance instance, uint64_t charge = 0, bool close_gate = true);

  size_t Ready(const std::string& program) const;
  // How long the loader took for each load, and how many it refused.
  const Histogram& loads() const { return loads_; }
  uint64_t failed_loads() const { return failed_loads_; }
  // Map memory and fds of ready instances, about, and of those being loaded.
  uint64_t bytes() const { return bytes_; }
  size_t fds() const { return fds_; }
  // Everything loaded and everyone served that can be: nothing is under way.
  bool Settled() const;

 private:
  struct Waiter {
    uint64_t ticket;
    Taken taken;
    std::vector<UniqueFd> session_maps;
    std::chrono::steady_clock::time_point deadline;
    bool loading = false;  // an instance for this one and for no other
  };
  struct Shelf {
    // Never two alike: which one a load under way was for. The same identity
    // may have left and come back meanwhile.
    uint64_t number = 0;
    std::string program;
    std::vector<v1::ParameterValue> constants;  // none: the defaults
    std::string identity;
    std::string digest;
    uint32_t target = 0;
    uint64_t instance_bytes = 0;
    size_t instance_fds = 0;
    size_t session_maps = 0;
    KeptByLoader kept = KeptByLoader::kNothing;
    std::deque<Instance> ready;
    std::deque<Waiter> waiting;
    uint32_t loading = 0;
    // After a refusal the shelf is not refilled on its own until this passes:
    // what the kernel refused once it will refuse again.
    std::chrono::steady_clock::time_point not_before{};
    // Nor is anything loaded for those who wait: the kernel was short of
    // something a moment ago.
    std::chrono::steady_clock::time_point short_until{};
  };

  std::string KeyOf(const Program& program, const Choice& choice) const;
  Shelf MakeShelf(const Program& program);
  // The shelf for those values, made if there is none.
  Shelf& ShelfFor(const Program& program, const Choice& choice);
  void DiscardReady(Shelf& shelf);
  // A shelf for values that nobody asked for of late: nothing is loaded for it
  // any more, and it goes once nobody waits for it.
  void Retire(const std::string& key);
  void RemoveIfDone(const std::string& key);

  // Refills when there is nothing else to do; or a little later, unless the
  // former happens first.
  void Schedule();
  void ScheduleSoon();
  void LoadSome();
  Shelf* NextToLoad(std::string& name);
  void Load(const std::string& name, Shelf& shelf);
  void OnLoaded(const std::string& name, uint64_t shelf_number, uint64_t ticket,
                Instance instance, absl::StatusOr<LoaderClient::Reply> reply);
  void Fail(Shelf& shelf, const absl::Status& status);
  // Instead of Fail, if it may go better in a moment for some who wait; only
  // those whose time is up are answered. False: it will not. `ticket` is whose
  // load it was, if it was for one alone.
  bool Postpone(Shelf& shelf, uint64_t ticket, const absl::Status& status);

  EventLoop& loop_;
  LoaderClient& loader_;
  Gates& gates_;
  Remains& remains_;
  Keeping* keeping_ = nullptr;
  const PoolLimits limits_;
  const bool reuse_instances_;
  const bool values_by_user_;
  // By program, or by program, user and values.
  absl::btree_map<std::string, Shelf> shelves_;
  KeptValues kept_values_;
  uint64_t next_shelf_ = 1;
  EventLoop::Source refill_;
  EventLoop::Source soon_;
  EventLoop::Source retry_;
  EventLoop::Source postponed_;
  bool stopped_ = false;
  size_t loading_ = 0;
  size_t waiting_ = 0;
  Histogram loads_;
  uint64_t failed_loads_ = 0;
  uint64_t bytes_ = 0;  // ready and loading
  size_t fds_ = 0;      // ready and loading
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_POOL_H_
