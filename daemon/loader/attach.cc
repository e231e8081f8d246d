#include "daemon/loader/attach.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/loader/target.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::daemon {
namespace {

// What a child says of its attempt; 0 is success.
struct Outcome {
  int error = 0;
};

// From here to AttachAndExit's end runs in the child: system calls only, no
// memory is allocated.

void CloseAllBut(std::array<int, 3> kept) {
  std::sort(kept.begin(), kept.end());
  // The socket to the broker above all: a child that hangs must not keep it
  // open beyond the loader's end.
  unsigned int first = 0;
  for (const int fd : kept) {
    if (static_cast<unsigned int>(fd) > first) {
      syscall(SYS_close_range, first, static_cast<unsigned int>(fd) - 1, 0);
    }
    first = static_cast<unsigned int>(fd) + 1;
  }
  syscall(SYS_close_range, first, ~0U, 0);
}

[[noreturn]] void AttachAndExit(int fd, int program, int pipe,
                                v1::Target target, bool lock, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // The parent may have died before that call.
  if (getppid() != parent) _exit(1);
  CloseAllBut({fd, program, pipe});
  const Outcome outcome{PutOn(fd, program, target, lock)};
  const ssize_t written = write(pipe, &outcome, sizeof(outcome));
  _exit(written == sizeof(outcome) ? 0 : 1);
}

absl::Status TimedOut() {
  return Refuse(v1::REASON_ATTACH_FAILED, "attaching timed out");
}

bool Reap(pid_t pid) {
  int status;
  return waitpid(pid, &status, WNOHANG) != 0;
}

}  // namespace

Attacher::~Attacher() {
  for (const Child& child : children_) {
    kill(child.pid, SIGKILL);
    Reap(child.pid);
  }
}

bool Attacher::HasPlaceFor(uint32_t owner) const {
  const auto of_owner = std::count_if(
      children_.begin(), children_.end(),
      [owner](const Child& child) { return child.owner == owner; });
  return children_.size() < kMaxChildren &&
         static_cast<size_t>(of_owner) < kMaxChildrenOfOwner;
}

void Attacher::Start(uint64_t id, uint32_t owner, UniqueFd program, UniqueFd fd,
                     v1::Target target) {
  waiting_.push_back({id, owner, std::move(program), std::move(fd), target,
                      Clock::now() + deadline_});
  // A place may be free at once; a failure is answered by the next Collect.
  if (waiting_.size() == 1 && HasPlaceFor(owner) &&
      Fork(waiting_.front()).ok()) {
    waiting_.pop_front();
  }
}

absl::Status Attacher::Fork(Waiting& waiting) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) {
    return Refuse(v1::REASON_ATTACH_FAILED,
                  absl::StrCat("pipe2: ", std::strerror(errno)));
  }
  UniqueFd reading(ends[0]), writing(ends[1]);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) {
    return Refuse(v1::REASON_ATTACH_FAILED,
                  absl::StrCat("fork: ", std::strerror(errno)));
  }
  if (pid == 0) {
    AttachAndExit(waiting.fd.get(), waiting.program.get(), writing.get(),
                  waiting.target, mitigations_.lock_filter, parent);
  }
  children_.push_back({waiting.id, waiting.owner, waiting.target, pid,
                       std::move(reading), waiting.deadline});
  return absl::OkStatus();
}

void Attacher::AddTo(std::vector<pollfd>& polled) const {
  for (const Child& child : children_) {
    if (!child.answered) polled.push_back({child.outcome.get(), POLLIN, 0});
  }
}

std::optional<Attacher::Clock::time_point> Attacher::NextDeadline() const {
  std::optional<Clock::time_point> next;
  const auto consider = [&](Clock::time_point deadline) {
    if (!next.has_value() || deadline < *next) next = deadline;
  };
  bool unreaped = false;
  for (const Child& child : children_) {
    if (child.answered) {
      unreaped = true;
    } else {
      consider(child.deadline);
    }
  }
  for (const Waiting& waiting : waiting_) consider(waiting.deadline);
  // Nothing tells of a killed child's end; look again now and then.
  if (unreaped) consider(Clock::now() + std::chrono::milliseconds(100));
  return next;
}

void Attacher::CollectChild(Child& child, Clock::time_point now,
                            std::vector<Result>& results) {
  Outcome outcome;
  ssize_t length;
  do {
    length = read(child.outcome.get(), &outcome, sizeof(outcome));
  } while (length < 0 && errno == EINTR);
  if (length == sizeof(outcome)) {
    results.push_back({child.id, StatusOfPutOn(outcome.error, child.target)});
  } else if (length >= 0) {
    results.push_back(
        {child.id, Refuse(v1::REASON_ATTACH_FAILED,
                          "the process that attaches ended without a word")});
  } else if (now >= child.deadline) {
    results.push_back({child.id, TimedOut()});
  } else {
    return;
  }
  child.answered = true;
  child.outcome.reset();
  // Nothing more is expected of it, whatever it is at.
  kill(child.pid, SIGKILL);
}

void Attacher::StartWaiting(std::vector<Result>& results) {
  const Clock::time_point now = Clock::now();
  std::erase_if(waiting_, [&](Waiting& next) {
    if (now >= next.deadline) {
      results.push_back({next.id, TimedOut()});
      return true;
    }
    // One whose owner's places are taken does not hold up the others.
    if (!HasPlaceFor(next.owner)) return false;
    if (auto status = Fork(next); !status.ok()) {
      results.push_back({next.id, status});
    }
    return true;
  });
}

std::vector<Attacher::Result> Attacher::Collect() {
  std::vector<Result> results;
  const Clock::time_point now = Clock::now();
  for (Child& child : children_) {
    if (!child.answered) CollectChild(child, now, results);
  }
  std::erase_if(children_, [](const Child& child) {
    return child.answered && Reap(child.pid);
  });
  StartWaiting(results);
  return results;
}

size_t Attacher::pending() const {
  return waiting_.size() +
         static_cast<size_t>(
             std::count_if(children_.begin(), children_.end(),
                           [](const Child& child) { return !child.answered; }));
}

}  // namespace bpfgrant::daemon
