#include "daemon/loader/children.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "daemon/loader/child.h"

namespace bpfgrant::daemon {
namespace {

[[noreturn]] void WorkAndExit(const Children::Job& job, int pipe,
                              pid_t parent) {
  LiveNoLongerThan(parent);
  std::vector<int> kept{pipe};
  for (const UniqueFd& fd : job.fds) kept.push_back(fd.get());
  CloseAllBut(std::move(kept));
  _exit(SayAll(pipe, job.work(job.fds)) ? 0 : 1);
}

bool Reap(pid_t pid) {
  int status;
  return waitpid(pid, &status, WNOHANG) != 0;
}

}  // namespace

Children::~Children() {
  for (const Child& child : children_) {
    kill(child.pid, SIGKILL);
    Reap(child.pid);
  }
}

bool Children::HasPlaceFor(uint32_t owner) const {
  const auto of_owner = std::count_if(
      children_.begin(), children_.end(),
      [owner](const Child& child) { return child.owner == owner; });
  return children_.size() < kMaxChildren &&
         static_cast<size_t>(of_owner) < kMaxChildrenOfOwner;
}

void Children::Start(Job job) {
  // A place may be free at once; a failure is answered by the next Collect.
  if (HasPlaceFor(job.owner) && Fork(job)) return;
  waiting_.push_back(std::move(job));
}

bool Children::Fork(const Job& job) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) return false;
  UniqueFd reading(ends[0]), writing(ends[1]);
  // Ours alone: the child's end waits for us.
  if (fcntl(reading.get(), F_SETFL, O_NONBLOCK) < 0) return false;
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return false;
  if (pid == 0) WorkAndExit(job, writing.get(), parent);
  children_.push_back(
      {job.id, job.owner, pid, std::move(reading), job.deadline, {}});
  return true;
}

void Children::AddTo(std::vector<pollfd>& polled) const {
  for (const Child& child : children_) {
    if (!child.answered) polled.push_back({child.pipe.get(), POLLIN, 0});
  }
}

std::optional<Children::Clock::time_point> Children::NextDeadline() const {
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
  for (const Job& job : waiting_) {
    // Its place came free, or could not be used at first.
    consider(HasPlaceFor(job.owner) ? Clock::now() : job.deadline);
  }
  // Nothing tells of a killed child's end; look again now and then.
  if (unreaped) consider(Clock::now() + std::chrono::milliseconds(100));
  return next;
}

std::optional<Children::End> Children::Listen(Child& child,
                                              Clock::time_point now) {
  std::array<char, 4096> buffer;
  for (;;) {
    const ssize_t length = read(child.pipe.get(), buffer.data(), buffer.size());
    if (length < 0 && errno == EINTR) continue;
    // To the end of the pipe: what it has to say may come in pieces.
    if (length == 0) return child.said.empty() ? End::kDied : End::kSaid;
    if (length < 0) break;
    child.said.append(buffer.data(), static_cast<size_t>(length));
    if (child.said.size() > kMaxSaid) return End::kDied;
  }
  return now >= child.deadline ? std::optional(End::kTooLate) : std::nullopt;
}

void Children::StartWaiting(std::vector<Result>& results) {
  const Clock::time_point now = Clock::now();
  std::erase_if(waiting_, [&](const Job& next) {
    if (now >= next.deadline) {
      results.push_back({next.id, End::kTooLate, {}});
      return true;
    }
    // One whose owner's places are taken does not hold up the others.
    if (!HasPlaceFor(next.owner)) return false;
    if (!Fork(next)) results.push_back({next.id, End::kNotBegun, {}});
    return true;
  });
}

std::vector<Children::Result> Children::Collect() {
  std::vector<Result> results;
  const Clock::time_point now = Clock::now();
  for (Child& child : children_) {
    if (child.answered) continue;
    const std::optional<End> end = Listen(child, now);
    if (!end.has_value()) continue;
    results.push_back({child.id, *end, std::move(child.said)});
    child.answered = true;
    child.pipe.reset();
    // Nothing more is expected of it, whatever it is at.
    kill(child.pid, SIGKILL);
  }
  std::erase_if(children_, [](const Child& child) {
    return child.answered && Reap(child.pid);
  });
  StartWaiting(results);
  return results;
}

size_t Children::pending() const {
  return waiting_.size() +
         static_cast<size_t>(
             std::count_if(children_.begin(), children_.end(),
                           [](const Child& child) { return !child.answered; }));
}

}  // namespace bpfgrant::daemon
