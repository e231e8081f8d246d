// Jobs that clients can hold up (they take clients' locks, or read clients'
// files), each in a child of its own with a deadline: the loader waits for
// none.

#ifndef DAEMON_LOADER_CHILDREN_H_
#define DAEMON_LOADER_CHILDREN_H_

#include <poll.h>
#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "proto/wire/unique_fd.h"

namespace bpfgrant::daemon {

class Children {
 public:
  using Clock = std::chrono::steady_clock;

  // Children at once, those included that were killed and are not gone yet.
  static constexpr size_t kMaxChildren = 64;
  // Of one owner: whoever makes jobs hang must not take all places.
  static constexpr size_t kMaxChildrenOfOwner = 4;
  // What a child may say, in bytes.
  static constexpr size_t kMaxSaid = 16 * 1024;

  struct Job {
    uint64_t id = 0;
    uint32_t owner = 0;
    Clock::time_point deadline;
    // All fds that it has.
    std::vector<UniqueFd> fds;
    // Runs in the child; what it returns is what is said of it.
    std::function<std::string(const std::vector<UniqueFd>& fds)> work;
  };

  enum class End { kSaid, kTooLate, kDied, kNotBegun };

  struct Result {
    uint64_t id = 0;
    End end = End::kDied;
    std::string said;
  };

  Children() = default;
  // Kills the children and does not wait for them.
  ~Children();
  Children(const Children&) = delete;
  Children& operator=(const Children&) = delete;

  // Begins it as soon as there is a place. Collect answers for its id, at the
  // latest when the deadline is past. Other threads of the process must hold no
  // locks but malloc's, which glibc keeps whole over fork(2): the work
  // allocates.
  void Start(Job job);

  // Adds what poll(2) has to watch for Collect to have something to do.
  void AddTo(std::vector<pollfd>& polled) const;
  // When Collect is to be called even if nothing happened.
  std::optional<Clock::time_point> NextDeadline() const;

  // What is decided by now; never waits. Children past the deadline are killed
  // and answered for at once, gone or not.
  std::vector<Result> Collect();

  // Jobs that Collect has not answered for.
  size_t pending() const;

 private:
  struct Child {
    uint64_t id;
    uint32_t owner;
    pid_t pid;
    UniqueFd pipe;  // on which it says what there is to say
    Clock::time_point deadline;
    std::string said;
    bool answered = false;  // and killed; only to be reaped
  };

  bool Fork(const Job& job);
  bool HasPlaceFor(uint32_t owner) const;
  void StartWaiting(std::vector<Result>& results);
  static std::optional<End> Listen(Child& child, Clock::time_point now);

  std::deque<Job> waiting_;
  std::vector<Child> children_;
};

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_CHILDREN_H_
