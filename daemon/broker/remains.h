// What remains of instances that the broker has let go of: as long as a client
// keeps a copy of an fd, a pin, an attachment or a mapping, the kernel keeps
// the object, and the grant keeps counting against its user's quota.
//
// The loader is asked now and then what is left (its census.h), and the less
// often the longer something stays; nobody who is served waits for that.

#ifndef DAEMON_BROKER_REMAINS_H_
#define DAEMON_BROKER_REMAINS_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "daemon/broker/event_loop.h"
#include "daemon/broker/gates.h"
#include "daemon/broker/ledger.h"
#include "daemon/broker/loader_client.h"

namespace bpfgrant::broker {

class Remains {
 public:
  using Clock = std::chrono::steady_clock;
  // Called once, later; with REASON_DAEMON_STOPPED from Stop.
  using Done = absl::AnyInvocable<void(absl::Status)>;

  // `looks`: the loader can tell. If not, nothing is ever added.
  Remains(EventLoop& loop, LoaderClient& loader, Ledger& ledger, bool looks);

  bool looks() const { return looks_; }

  // An instance that is no longer the broker's; with `session_maps`, the maps
  // that it shared within its session instead. `charge` is the ledger's entry
  // that is given back when nothing is left; 0: it counts for nobody.
  void Add(Gates::Gate gate, bool session_maps, uint64_t charge);

  // OK once `charge` is given back. REASON_STILL_HELD after `patience`.
  // REASON_BUSY, at once: somebody waits for it already.
  void Await(uint64_t charge, std::chrono::milliseconds patience, Done done);

  // OK once something is given back that counted for `uid` under `rule`.
  // kDeadlineExceeded at `until`.
  void AwaitRoom(const std::string& rule, uid_t uid, Clock::time_point until,
                 Done done);

  // Whether memory of what clients had may come back by itself.
  bool MayFreeMemory() const {
    return charged_ > 0 || Clock::now() < last_gone_ + kMemoryLag;
  }

  // Answers whoever waits.
  void Stop();

 private:
  struct Entry {
    Gates::Gate gate;
    bool session_maps;
    uint64_t charge;
    std::chrono::milliseconds pause;  // before it is looked at again
  };
  struct Waiter {
    Done done;
    EventLoop::Source deadline;
  };
  using Account = std::pair<std::string, uid_t>;

  // From the end of an object to the return of its memory, which the kernel
  // sees to at its leisure; several times what was seen.
  static constexpr std::chrono::seconds kMemoryLag{2};

  void Schedule();
  void Look();
  void OnLooked(absl::StatusOr<LoaderClient::Reply> reply);
  // Nothing is left of it.
  void Gone(const Entry& entry);
  // It is looked at again, soon if somebody waits for it.
  void Keep(Entry entry);
  bool IsAwaited(const Entry& entry) const;
  // Those for which `matches` holds are looked at soon.
  void Hurry(absl::FunctionRef<bool(const Entry&)> matches);
  void Answer(uint64_t charge, absl::Status status);
  void AnswerRoom(const Account& account, const absl::Status& status);

  EventLoop& loop_;
  LoaderClient& loader_;
  Ledger& ledger_;
  const bool looks_;
  // By when to look.
  std::multimap<Clock::time_point, Entry> entries_;
  std::vector<Entry> looked_at_;  // in the request under way
  bool looking_ = false;
  Clock::time_point not_before_{};
  size_t charged_ = 0;             // entries that count for somebody
  Clock::time_point last_gone_{};  // the last of those
  Clock::time_point next_look_{};
  EventLoop::Source timer_;
  absl::flat_hash_map<uint64_t, Waiter> waiters_;  // by charge
  absl::flat_hash_map<Account, std::vector<std::pair<uint64_t, Waiter>>> room_;
  uint64_t next_waiter_ = 1;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_REMAINS_H_
