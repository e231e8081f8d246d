// The pool, as far as it decides what to load next, and for whom it was.

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "daemon/broker/keeping.h"
#include "daemon/broker/pool.h"
#include "daemon/broker/remains.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"
#include "spdlog/spdlog.h"

namespace bpfgrant::broker {
namespace {

// Loads under way at once. The loader serves them one after the other; one more
// keeps it from waiting for us.
constexpr size_t kMaxLoading = 2;
constexpr std::chrono::milliseconds kRetryAfter{1000};
constexpr std::chrono::milliseconds kRefillAfter{2};
// About as long as the kernel takes to free something.
constexpr std::chrono::milliseconds kPostpone{25};

// Those of a reply, into `instance`: as many as it has to have, and then, or
// not, those that its session is to keep.
bool TakeFds(size_t instance_fds, size_t session_maps,
             std::vector<UniqueFd>& fds, Instance& instance) {
  if (fds.size() == instance_fds + session_maps) {
    const auto first = fds.begin() + static_cast<ptrdiff_t>(instance_fds);
    instance.session_maps.assign(std::make_move_iterator(first),
                                 std::make_move_iterator(fds.end()));
    fds.resize(instance_fds);
  }
  if (fds.size() != instance_fds) return false;
  instance.fds = std::move(fds);
  return true;
}

// Those of the session come last.
void SetFdIds(const daemon::LoadReply& made, Instance& instance) {
  instance.fd_ids = {made.fd_id().begin(), made.fd_id().end()};
  const size_t own = std::min(instance.fd_ids.size(), instance.fds.size());
  const auto first = instance.fd_ids.begin() + static_cast<ptrdiff_t>(own);
  instance.session_map_ids.assign(first, instance.fd_ids.end());
  instance.fd_ids.resize(own);
}

}  // namespace

void Pool::Schedule() {
  if (refill_.active()) return;
  refill_ = loop_.WhenIdle([this] {
    refill_ = EventLoop::Source();
    LoadSome();
  });
}

void Pool::ScheduleSoon() {
  if (refill_.active() || soon_.active()) return;
  soon_ = loop_.Timer(kRefillAfter, [this] {
    soon_ = EventLoop::Source();
    Schedule();
  });
}

void Pool::LoadSome() {
  while (loading_ < kMaxLoading && !stopped_) {
    std::string name;
    Shelf* shelf = NextToLoad(name);
    if (shelf == nullptr) return;
    Load(name, *shelf);
  }
}

Pool::Shelf* Pool::NextToLoad(std::string& name) {
  const auto now = std::chrono::steady_clock::now();
  Shelf* longest = nullptr;
  std::string longest_name;
  Shelf* emptiest = nullptr;
  for (auto& [candidate, shelf] : shelves_) {
    if (now < shelf.short_until) continue;
    if (shelf.waiting.size() > shelf.loading) {
      // Tickets grow: whoever has waited longest is next, whatever the program,
      // or one that is always wanted would keep all others waiting.
      if (longest == nullptr || shelf.waiting[shelf.loading].ticket <
                                    longest->waiting[longest->loading].ticket) {
        longest = &shelf;
        longest_name = candidate;
      }
      continue;
    }
    const size_t have = shelf.ready.size() + shelf.loading;
    if (have >= shelf.target || now < shelf.not_before ||
        bytes_ + shelf.instance_bytes > limits_.bytes ||
        fds_ + shelf.instance_fds > limits_.fds) {
      continue;
    }
    if (emptiest == nullptr ||
        have < emptiest->ready.size() + emptiest->loading) {
      emptiest = &shelf;
      name = candidate;
    }
  }
  if (longest == nullptr) return emptiest;
  name = std::move(longest_name);
  return longest;
}

void Pool::Load(const std::string& name, Shelf& shelf) {
  const std::optional<Gates::Gate> gate = gates_.Allocate();
  if (!gate.has_value()) {
    Fail(shelf, Refuse(v1::REASON_BUSY, absl::StrCat("all ", gates_.slots(),
                                                     " gate slots are taken")));
    return;
  }
  daemon::LoaderRequest request;
  daemon::LoadRequest& load = *request.mutable_load();
  load.set_program(shelf.program);
  *load.mutable_parameter() = {shelf.constants.begin(), shelf.constants.end()};
  load.set_identity(shelf.identity);
  load.set_gate_slot(gate->slot);
  load.set_gate_nonce(gate->nonce);
  // With maps of a session's, an instance is for one waiter.
  uint64_t ticket = 0;
  std::vector<UniqueFd> session_maps;
  if (shelf.session_maps > 0) {
    const auto waiter =
        std::find_if(shelf.waiting.begin(), shelf.waiting.end(),
                     [](const Waiter& each) { return !each.loading; });
    if (waiter != shelf.waiting.end()) {
      waiter->loading = true;
      ticket = waiter->ticket;
      session_maps = CopyFds(waiter->session_maps);
    }
  }
  ++shelf.loading;
  ++loading_;
  bytes_ += shelf.instance_bytes;
  fds_ += shelf.instance_fds;
  loader_.Send(
      std::move(request), std::move(session_maps), kLoadDeadline,
      [this, name, number = shelf.number, ticket, bytes = shelf.instance_bytes,
       fds = shelf.instance_fds, kept = shelf.kept, gate = *gate,
       began = std::chrono::steady_clock::now()](
          absl::StatusOr<LoaderClient::Reply> reply) {
        loads_.Record(std::chrono::steady_clock::now() - began);
        if (!reply.ok()) ++failed_loads_;
        --loading_;
        bytes_ -= bytes;
        fds_ -= fds;
        OnLoaded(name, number, ticket, Instance{{}, gate, {}, kept, {}, {}, {}},
                 std::move(reply));
        RemoveIfDone(name);
        LoadSome();
      });
}

void Pool::OnLoaded(const std::string& name, uint64_t shelf_number,
                    uint64_t ticket, Instance instance,
                    absl::StatusOr<LoaderClient::Reply> reply) {
  const auto found = shelves_.find(name);
  const bool current =
      found != shelves_.end() && found->second.number == shelf_number;
  if (current) --found->second.loading;
  if (!reply.ok() || !current || !reply->message.has_load() ||
      !TakeFds(found->second.instance_fds, found->second.session_maps,
               reply->fds, instance)) {
    Discard(std::move(instance));
    if (!current) return;
    const absl::Status status =
        reply.ok() ? absl::InternalError("the loader sent other fds")
                   : reply.status();
    if (!Postpone(found->second, ticket, status)) Fail(found->second, status);
    return;
  }
  Shelf& shelf = found->second;
  instance.digest = shelf.digest;
  const daemon::LoadReply& made = reply->message.load();
  instance.program_ids = {made.program_id().begin(), made.program_id().end()};
  instance.map_ids = {made.map_id().begin(), made.map_id().end()};
  SetFdIds(made, instance);
  if (HasProgram(shelf.kept)) {
    instance.fds.emplace(instance.fds.begin());
    instance.fd_ids.insert(instance.fd_ids.begin(), 0);
  }
  if (keeping_ != nullptr) {
    // A service manager keeps each file once, under the name that comes first:
    // what the session needs for as long as it lives goes before.
    keeping_->KeepSharedMaps(instance);
    keeping_->Keep(instance);
  }
  const bool wanted = shelf.constants.empty() || shelf.target > 0;
  if (shelf.waiting.empty() && ticket == 0 && !wanted) {
    Discard(std::move(instance));
    return;
  }
  if (shelf.waiting.empty() && ticket == 0) {
    shelf.ready.push_back(std::move(instance));
    bytes_ += shelf.instance_bytes;
    fds_ += shelf.instance_fds;
    return;
  }
  auto waiter = shelf.waiting.begin();
  if (ticket != 0) {
    waiter = std::find_if(
        shelf.waiting.begin(), shelf.waiting.end(),
        [ticket](const Waiter& each) { return each.ticket == ticket; });
  }
  if (waiter == shelf.waiting.end()) {
    Discard(std::move(instance));
    return;
  }
  Taken taken = std::move(waiter->taken);
  shelf.waiting.erase(waiter);
  --waiting_;
  taken(std::move(instance));
}

bool Pool::Postpone(Shelf& shelf, uint64_t ticket, const absl::Status& status) {
  if (ReasonOf(status) != v1::REASON_BUSY || !remains_.MayFreeMemory()) {
    return false;
  }
  const auto now = std::chrono::steady_clock::now();
  std::vector<Taken> late;
  std::erase_if(shelf.waiting, [&](Waiter& waiter) {
    if (waiter.ticket == ticket) waiter.loading = false;
    if (now < waiter.deadline) return false;
    late.push_back(std::move(waiter.taken));
    return true;
  });
  waiting_ -= late.size();
  const bool some_wait = !shelf.waiting.empty();
  if (some_wait) {
    shelf.short_until = now + kPostpone;
    postponed_ = loop_.Timer(kPostpone, [this] { LoadSome(); });
  }
  for (Taken& taken : late) taken(status);
  return some_wait;
}

void Pool::Fail(Shelf& shelf, const absl::Status& status) {
  shelf.not_before = std::chrono::steady_clock::now() + kRetryAfter;
  if (!shelf.ready.empty() || shelf.target > 0) {
    retry_ = loop_.Timer(kRetryAfter, [this] { Schedule(); });
  }
  std::deque<Waiter> waiting = std::move(shelf.waiting);
  shelf.waiting.clear();
  waiting_ -= waiting.size();
  if (!waiting.empty()) spdlog::warn("pool: {}", status.ToString());
  for (Waiter& waiter : waiting) waiter.taken(status);
}

}  // namespace bpfgrant::broker
