#include "daemon/loader/loops.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/process.h"
#include "daemon/stored_names.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/message_socket.h"

namespace bpfgrant::daemon {
namespace {

// Nothing tells of the end of a child that was killed; look now and then.
constexpr std::chrono::milliseconds kLookAgain{20};
constexpr int kSweepsBeforeAll = 3;

absl::Status Errno(v1::Reason reason, absl::string_view what, int error) {
  return Refuse(reason, absl::StrCat(what, ": ", std::strerror(error)));
}

absl::Status TakeRingStatus(int error) {
  switch (error) {
    case EBADF:
      return Refuse(v1::REASON_RING_NOT_YOURS,
                    "the process that connected has no fd of that number");
    case ESRCH:
      return Refuse(v1::REASON_RING_NOT_YOURS,
                    "the process that connected is gone");
    default:
      return Errno(v1::REASON_ATTACH_FAILED, "taking a copy of the ring",
                   error);
  }
}

absl::Status RestrictStatus(int error) {
  switch (error) {
    // The latter of rings with SINGLE_ISSUER, whose issuer is known by then.
    case EBADFD:
    case EEXIST:
      return Refuse(v1::REASON_RING_NOT_DISABLED,
                    "the ring is enabled, so it cannot be restricted");
    case EBUSY:
      return Refuse(v1::REASON_RING_RESTRICTED,
                    "the ring has restrictions already");
    default:
      return Errno(v1::REASON_ATTACH_FAILED, "restricting the ring", error);
  }
}

absl::Status LinkStatus(int error) {
  switch (error) {
    case EOPNOTSUPP:
      return Refuse(v1::REASON_RING_FLAGS,
                    "the ring has flags with which the kernel takes no loop, "
                    "or lacks IORING_SETUP_DEFER_TASKRUN");
    case EBUSY:
      return Refuse(v1::REASON_RING_RESTRICTED, "the ring has a loop already");
    default:
      return Errno(v1::REASON_ATTACH_FAILED, "attaching the loop", error);
  }
}

absl::Status StatusOf(const LoopWord& word, const v1::Manifest::Loop& loop) {
  switch (word.failed) {
    case LoopWord::kNone:
      return absl::OkStatus();
    case LoopWord::kTakeRing:
      return TakeRingStatus(word.error);
    case LoopWord::kLookAtRing:
      return Refuse(v1::REASON_NOT_A_RING, "that fd is not an io_uring");
    case LoopWord::kGeometry:
      return Refuse(
          v1::REASON_RING_GEOMETRY,
          absl::StrCat("the ring has ", word.sq_entries, " submission and ",
                       word.cq_entries, " completion entries, the loop wants ",
                       loop.sq_entries(), " and ", loop.cq_entries()));
    case LoopWord::kRestrict:
      return RestrictStatus(word.error);
    case LoopWord::kLink:
      return LinkStatus(word.error);
  }
  return absl::InternalError("a child said something else");
}

absl::Status Blocked() {
  return Refuse(v1::REASON_RING_BLOCKED,
                "the ring's lock was held for longer than the daemon waits; "
                "the process that holds it is killed");
}

absl::Status ForkFailed(const char* call) {
  return Errno(v1::REASON_ATTACH_FAILED, call, errno);
}

struct Ends {
  UniqueFd ours;
  UniqueFd theirs;
};

absl::StatusOr<Ends> MakeSocket() {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
    return ForkFailed("socketpair");
  }
  return Ends{UniqueFd(pair[0]), UniqueFd(pair[1])};
}

bool IsGone(pid_t pid) {
  int status;
  return waitpid(pid, &status, WNOHANG) != 0;
}

void Kill(const UniqueFd& pidfd) {
  syscall(SYS_pidfd_send_signal, pidfd.get(), SIGKILL, nullptr, 0);
}

UniqueFd Duplicate(const UniqueFd& fd) {
  return UniqueFd(fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
}

}  // namespace

Loops::~Loops() {
  for (const auto& child : children_) {
    kill(child->pid, SIGKILL);
    IsGone(child->pid);
  }
}

void Loops::Keep(Gate gate, UniqueFd structure,
                 std::shared_ptr<const Program> program) {
  Loop& loop = loops_[gate];
  loop.program = std::move(program);
  loop.structure = std::move(structure);
}

void Loops::Restore(Gate gate, UniqueFd link, UniqueFd pidfd) {
  Loop& loop = loops_[gate];
  loop.used = true;
  loop.link = std::move(link);
  if (pidfd.valid()) loop.user = UserOf(pidfd.get());
  if (loop.user == 0u) loop.user.reset();
  loop.owner = loop.user.value_or(0);
  loop.pidfd = std::move(pidfd);
}

// Before anybody is told that it is attached.
void Loops::Store(Gate gate, const Loop& loop) {
  // The pidfd that came is the session's, which a service manager would keep
  // once for all of its loops, under the name of the first.
  const UniqueFd process = OpenAgain(loop.pidfd.get());
  const int link = loop.link.get(), pidfd = process.get();
  store_.Put(StoredName(kStoredLink, {gate.first, gate.second}),
             absl::MakeSpan(&link, 1));
  store_.Put(StoredName(kStoredProcess, {gate.first, gate.second}),
             absl::MakeSpan(&pidfd, 1));
}

bool Loops::HasPlaceFor(uint32_t owner) const {
  const auto of_owner = std::count_if(
      children_.begin(), children_.end(), [owner](const auto& child) {
        return child->owner == owner && child->id.has_value();
      });
  return children_.size() < kMaxChildren &&
         static_cast<size_t>(of_owner) < kMaxChildrenOfOwner;
}

void Loops::Attach(uint64_t id, Gate gate, UniqueFd pidfd, int ring,
                   uint32_t owner) {
  const auto found = loops_.find(gate);
  Waiting waiting{id, gate, ring, Clock::now() + kAttachDeadline};
  // A loop that is not there is answered for by Collect.
  if (found != loops_.end() && !found->second.used) {
    found->second.used = true;
    found->second.pidfd = std::move(pidfd);
    found->second.owner = owner;
    found->second.user = UserOf(found->second.pidfd.get());
    if (found->second.user == 0u) found->second.user.reset();
    if (waiting_.empty() && HasPlaceFor(owner) && Fork(waiting).ok()) return;
  } else {
    waiting.gate = {};
  }
  waiting_.push_back(waiting);
}

absl::Status Loops::Fork(const Waiting& waiting) {
  Loop& loop = loops_[waiting.gate];
  auto socket = MakeSocket();
  if (!socket.ok()) return socket.status();
  const v1::Manifest::Loop& declared = loop.program->manifest->message().loop();
  const LoopRights rights = RightsOf(declared);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return ForkFailed("fork");
  if (pid == 0) {
    AttachLoopAndExit({loop.structure.get(), loop.pidfd.get(), waiting.ring,
                       &declared, &rights},
                      socket->theirs.get(), parent, mitigations_);
  }
  auto child = std::make_unique<Child>();
  child->pid = pid;
  child->socket = std::move(socket->ours);
  child->id = waiting.id;
  child->gate = waiting.gate;
  child->owner = loop.owner;
  child->user = loop.user;
  child->pidfd = Duplicate(loop.pidfd);
  child->phase = Phase::kPreparing;
  child->deadline = waiting.deadline;
  children_.push_back(std::move(child));
  return absl::OkStatus();
}

void Loops::Detach(Gate gate) {
  const auto found = loops_.find(gate);
  if (found == loops_.end()) return;
  Loop& loop = found->second;
  store_.Remove(StoredName(kStoredLink, {gate.first, gate.second}));
  store_.Remove(StoredName(kStoredProcess, {gate.first, gate.second}));
  const bool attaching = std::any_of(
      children_.begin(), children_.end(), [gate](const auto& child) {
        return child->id.has_value() && child->gate == gate &&
               child->phase != Phase::kFinished;
      });
  if (attaching) {
    loop.unwanted = true;
    return;
  }
  if (loop.link.valid()) detaching_.push_back(std::move(loop));
  loops_.erase(found);
  StartDetaching();
}

std::vector<Loops::Gate> Loops::Gates() const {
  std::vector<Gate> gates;
  for (const auto& [gate, loop] : loops_) gates.push_back(gate);
  return gates;
}

bool Loops::LinkingIsFree() const {
  return !mitigations_.loop_link_turns ||
         std::none_of(
             children_.begin(), children_.end(),
             [](const auto& child) { return child->phase == Phase::kLinking; });
}

void Loops::StartDetaching() {
  while (!detaching_.empty() && LinkingIsFree() &&
         children_.size() < kMaxChildren) {
    auto socket = MakeSocket();
    if (!socket.ok()) return;
    Loop& loop = detaching_.front();
    const pid_t parent = getpid();
    const pid_t pid = fork();
    if (pid < 0) return;
    if (pid == 0) {
      DetachLoopAndExit(loop.link.get(), socket->theirs.get(), parent);
    }
    auto child = std::make_unique<Child>();
    child->pid = pid;
    child->socket = std::move(socket->ours);
    child->gate = {};
    child->owner = loop.owner;
    child->user = loop.user;
    child->link = std::move(loop.link);
    child->pidfd = std::move(loop.pidfd);
    child->phase = Phase::kLinking;
    child->deadline = Clock::now() + kLinkDeadline;
    children_.push_back(std::move(child));
    detaching_.pop_front();
  }
}

// Those who are ready link one at a time, in the order in which they came; what
// is to be detached goes first.
void Loops::GiveTurns() {
  StartDetaching();
  for (const auto& child : children_) {
    if (!LinkingIsFree()) return;
    if (child->phase != Phase::kReady) continue;
    const char turn = 1;
    if (send(child->socket.get(), &turn, sizeof(turn),
             MSG_DONTWAIT | MSG_NOSIGNAL) != sizeof(turn)) {
      continue;  // it is gone, as Listen will find
    }
    child->phase = Phase::kLinking;
    child->deadline = Clock::now() + kLinkDeadline;
  }
}

void Loops::Finish(Child& child, const LoopWord& word, UniqueFd link,
                   std::vector<Result>& results) {
  child.phase = Phase::kFinished;
  child.socket.reset();
  // A detached link is empty: closing it takes no lock.
  child.link.reset();
  if (!child.id.has_value()) {
    // Made after all, too late: closing it here could wait for the client.
    if (link.valid()) {
      Loop& late = detaching_.emplace_back();
      late.link = std::move(link);
      late.pidfd = std::move(child.pidfd);
      late.owner = child.owner;
      late.user = child.user;
    }
    return;
  }
  const auto found = loops_.find(child.gate);
  if (found == loops_.end()) return;
  Loop& loop = found->second;
  absl::Status status =
      StatusOf(word, loop.program->manifest->message().loop());
  if (status.ok() && !link.valid()) {
    status = absl::InternalError("a link that was made did not arrive");
  }
  results.push_back({*child.id, status});
  loop.structure.reset();
  loop.link = std::move(link);
  if (loop.unwanted) {
    Detach(child.gate);
  } else if (loop.link.valid()) {
    Store(child.gate, loop);
  }
}

void Loops::Listen(Child& child, std::vector<Result>& results) {
  std::array<char, sizeof(LoopWord)> buffer;
  for (;;) {
    auto packet = ReceivePacket(child.socket.get(), absl::MakeSpan(buffer), 1);
    if (absl::IsUnavailable(packet.status())) return;
    LoopWord word;
    // One that was killed may still hold the machine's lock while it exits: its
    // turn ends when it is gone and not before.
    if (!packet.ok() && child.kills > 0) {
      child.socket.reset();
      return;
    }
    if (!packet.ok() || packet->bytes.size() != sizeof(word)) {
      word.kind = LoopWord::kDone;
      word.failed = LoopWord::kLink;
      word.error = ECHILD;
      Finish(child, word, UniqueFd(), results);
      return;
    }
    std::memcpy(&word, packet->bytes.data(), sizeof(word));
    if (word.kind == LoopWord::kDone) {
      Finish(child, word,
             packet->fds.empty() ? UniqueFd() : std::move(packet->fds.front()),
             results);
      return;
    }
    child.phase = Phase::kReady;
  }
}

// One whose time is up waits for the ring's lock. The gate is closed, or was
// never opened, so it is not the loop that has it but the client itself.
void Loops::HurryUp(Child& child, Clock::time_point now,
                    std::vector<Result>& results) {
  const bool waits_for_ring =
      child.phase == Phase::kPreparing || child.phase == Phase::kLinking;
  if (!waits_for_ring || now < child.deadline) return;
  if (!mitigations_.loop_link_turns) {
    child.deadline = now + kLookAgain;
    return;
  }
  if (child.kills++ == 0) {
    if (child.id.has_value()) results.push_back({*child.id, Blocked()});
    child.id.reset();
    Kill(child.pidfd);
    // Dies as soon as it has what it waits for, and its link with it.
    kill(child.pid, SIGKILL);
  } else if (child.user.has_value()) {
    const pid_t sweeper = fork();
    // A ring need not be in the table of open files to be used; who hides one
    // there is not spared for ever.
    if (sweeper == 0) {
      KillOwnersOfRingsAndExit(*child.user, child.kills > kSweepsBeforeAll);
    }
    if (sweeper > 0) sweepers_.push_back(sweeper);
  }
  child.deadline = now + kLinkKillAfter;
}

void Loops::StartWaiting(std::vector<Result>& results) {
  const Clock::time_point now = Clock::now();
  std::erase_if(waiting_, [&](const Waiting& next) {
    const auto found = loops_.find(next.gate);
    if (found == loops_.end()) {
      results.push_back({next.id, Refuse(v1::REASON_UNKNOWN_GRANT,
                                         "no such loop waits for a ring")});
      return true;
    }
    if (now >= next.deadline) {
      results.push_back({next.id, Refuse(v1::REASON_BUSY,
                                         "too many loops are being attached")});
      return true;
    }
    if (!HasPlaceFor(found->second.owner)) return false;
    if (auto status = Fork(next); !status.ok()) {
      results.push_back({next.id, status});
    }
    return true;
  });
}

void Loops::AddTo(std::vector<pollfd>& polled) const {
  for (const auto& child : children_) {
    if (child->socket.valid()) {
      polled.push_back({child->socket.get(), POLLIN, 0});
    }
  }
}

std::optional<Loops::Clock::time_point> Loops::NextDeadline() const {
  std::optional<Clock::time_point> next;
  const auto consider = [&](Clock::time_point deadline) {
    if (!next.has_value() || deadline < *next) next = deadline;
  };
  for (const auto& child : children_) {
    if (child->phase == Phase::kFinished) consider(Clock::now() + kLookAgain);
    if (child->phase == Phase::kPreparing || child->phase == Phase::kLinking) {
      consider(child->deadline);
    }
  }
  if (!sweepers_.empty()) consider(Clock::now() + kLookAgain);
  for (const Waiting& waiting : waiting_) consider(waiting.deadline);
  return next;
}

std::vector<Loops::Result> Loops::Collect() {
  std::vector<Result> results;
  const Clock::time_point now = Clock::now();
  for (const auto& child : children_) {
    if (child->socket.valid()) Listen(*child, results);
    if (child->phase != Phase::kFinished) HurryUp(*child, now, results);
  }
  std::erase_if(children_, [](const auto& child) {
    return (child->phase == Phase::kFinished || !child->socket.valid()) &&
           IsGone(child->pid);
  });
  std::erase_if(sweepers_, IsGone);
  StartWaiting(results);
  GiveTurns();
  return results;
}

}  // namespace bpfgrant::daemon
