#include "daemon/broker/pool.h"

#include <fcntl.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "daemon/broker/keeping.h"
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

std::vector<UniqueFd> Copy(const std::vector<UniqueFd>& fds) {
  std::vector<UniqueFd> copies;
  for (const UniqueFd& fd : fds) {
    copies.emplace_back(fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
  }
  return copies;
}

// For the test that shows why an instance must not be handed out twice.
Instance Copy(const Instance& instance) {
  return {
      instance.digest, instance.gate, Copy(instance.fds), instance.kept, {}};
}

KeptByLoader KeptOf(const Program& program) {
  if (program.is_loop()) return KeptByLoader::kLoop;
  if (program.is_tracing()) return KeptByLoader::kMaps;
  const auto& parameters = program.description().parameter();
  return std::any_of(parameters.begin(), parameters.end(),
                     [](const auto& one) { return one.has_entry(); })
             ? KeptByLoader::kEntries
             : KeptByLoader::kNothing;
}

// Whether the loader has the program, and its fd does not come with an
// instance.
bool HasProgram(KeptByLoader kept) {
  return kept == KeptByLoader::kLoop || kept == KeptByLoader::kMaps;
}

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

Pool::Pool(EventLoop& loop, LoaderClient& loader, Gates& gates,
           Remains& remains, PoolLimits limits, bool reuse_instances,
           bool values_by_user)
    : loop_(loop),
      loader_(loader),
      gates_(gates),
      remains_(remains),
      limits_(limits),
      reuse_instances_(reuse_instances),
      values_by_user_(values_by_user) {}

Pool::~Pool() = default;

void Pool::SetCatalog(std::shared_ptr<const Snapshot> snapshot) {
  absl::btree_map<std::string, Shelf> old = std::move(shelves_);
  shelves_.clear();
  for (const auto& [name, program] : snapshot->programs()) {
    if (!program.available()) continue;
    const auto kept = old.find(name);
    if (kept != old.end() &&
        kept->second.identity == program.entry.identity()) {
      shelves_.emplace(name, std::move(kept->second));
      old.erase(kept);
    } else {
      shelves_.emplace(name, MakeShelf(program));
    }
  }
  for (auto shelf = old.begin(); shelf != old.end();) {
    const auto defaults = shelves_.find(shelf->second.program);
    if (!shelf->second.constants.empty() && defaults != shelves_.end() &&
        defaults->second.identity == shelf->second.identity) {
      shelves_.emplace(shelf->first, std::move(shelf->second));
      shelf = old.erase(shelf);
    } else {
      ++shelf;
    }
  }
  for (auto& [name, shelf] : old) {
    // Loads under way find their shelf gone and are discarded then; they are
    // taken off the account there.
    DiscardReady(shelf);
    kept_values_.Forget(name);
    Fail(shelf, Refuse(v1::REASON_PROGRAM_UNAVAILABLE,
                       absl::StrCat("'", shelf.program,
                                    "' was replaced or withdrawn")));
  }
  Schedule();
}

Pool::Shelf Pool::MakeShelf(const Program& program) {
  Shelf shelf;
  shelf.number = next_shelf_++;
  shelf.program = program.name();
  shelf.identity = program.entry.identity();
  shelf.digest = program.description().digest();
  shelf.target = program.entry.pool_target();
  shelf.instance_bytes = program.description().instance_bytes();
  shelf.kept = KeptOf(program);
  shelf.session_maps = static_cast<size_t>(program.entry.session_map_size());
  shelf.instance_fds =
      (HasProgram(shelf.kept) ? 0 : 1) + program.description().handle_size();
  return shelf;
}

std::string Pool::KeyOf(const Program& program, const Choice& choice) const {
  std::string key = program.name();
  if (choice.constants.empty()) return key;
  // No program's name has a line's end in it.
  absl::StrAppend(&key, "\n", values_by_user_ ? choice.uid : 0);
  for (const v1::ParameterValue& value : choice.constants) {
    const std::string bytes = value.SerializeAsString();
    absl::StrAppend(&key, "\n", bytes.size(), ":", bytes);
  }
  return key;
}

Pool::Shelf& Pool::ShelfFor(const Program& program, const Choice& choice) {
  const std::string key = KeyOf(program, choice);
  for (const std::string& evicted :
       kept_values_.Touch(values_by_user_ ? choice.uid : 0, key)) {
    Retire(evicted);
  }
  const auto [shelf, added] = shelves_.try_emplace(key);
  if (added) {
    shelf->second = MakeShelf(program);
    shelf->second.constants = choice.constants;
  }
  shelf->second.target = shelf->second.session_maps > 0 ? 0 : 1;
  return shelf->second;
}

void Pool::DiscardReady(Shelf& shelf) {
  while (!shelf.ready.empty()) {
    bytes_ -= shelf.instance_bytes;
    fds_ -= shelf.instance_fds;
    Discard(std::move(shelf.ready.front()));
    shelf.ready.pop_front();
  }
}

void Pool::Retire(const std::string& key) {
  const auto found = shelves_.find(key);
  if (found == shelves_.end()) return;
  found->second.target = 0;
  DiscardReady(found->second);
  RemoveIfDone(key);
}

void Pool::RemoveIfDone(const std::string& key) {
  const auto found = shelves_.find(key);
  if (found == shelves_.end()) return;
  const Shelf& shelf = found->second;
  if (!shelf.constants.empty() && shelf.target == 0 && shelf.ready.empty() &&
      shelf.waiting.empty() && shelf.loading == 0) {
    shelves_.erase(found);
  }
}

absl::StatusOr<Instance> Pool::TakeReady(const Program& program,
                                         const Choice& choice) {
  const auto found = shelves_.find(KeyOf(program, choice));
  // Whoever waits already is served first.
  if (found == shelves_.end() || found->second.ready.empty() ||
      !found->second.waiting.empty()) {
    return absl::UnavailableError("no instance is ready");
  }
  Shelf& shelf = found->second;
  if (!choice.constants.empty()) {
    // Makes no room: it is among them.
    kept_values_.Touch(values_by_user_ ? choice.uid : 0, found->first);
  }
  if (reuse_instances_) return Copy(shelf.ready.front());
  Instance instance = std::move(shelf.ready.front());
  shelf.ready.pop_front();
  bytes_ -= shelf.instance_bytes;
  fds_ -= shelf.instance_fds;
  // While half of them are left, whoever comes next is served before the pool.
  if (shelf.ready.size() * 2 >= shelf.target) {
    ScheduleSoon();
  } else {
    Schedule();
  }
  return instance;
}

void Pool::TakeWhenLoaded(const Program& program, uint64_t ticket,
                          std::vector<UniqueFd> session_maps, Taken taken,
                          const Choice& choice) {
  const auto found = shelves_.find(program.name());
  if (found == shelves_.end()) {
    taken(Refuse(v1::REASON_PROGRAM_UNAVAILABLE,
                 absl::StrCat("'", program.name(), "' is not available")));
    return;
  }
  if (waiting_ >= kMaxPending) {
    taken(Refuse(v1::REASON_BUSY,
                 absl::StrCat(waiting_, " requests wait for the loader")));
    return;
  }
  Shelf& shelf =
      choice.constants.empty() ? found->second : ShelfFor(program, choice);
  shelf.waiting.push_back({ticket, std::move(taken), std::move(session_maps),
                           std::chrono::steady_clock::now() + kLoadDeadline,
                           false});
  ++waiting_;
  LoadSome();
}

void Pool::Cancel(uint64_t ticket) {
  std::vector<Taken> cancelled;
  for (auto& [name, shelf] : shelves_) {
    auto& waiting = shelf.waiting;
    for (auto waiter = waiting.begin(); waiter != waiting.end();) {
      if (waiter->ticket != ticket) {
        ++waiter;
        continue;
      }
      cancelled.push_back(std::move(waiter->taken));
      waiter = waiting.erase(waiter);
      --waiting_;
    }
  }
  for (Taken& taken : cancelled) taken(absl::CancelledError());
}

void Pool::Discard(Instance instance, uint64_t charge, bool close_gate) {
  if (close_gate) gates_.Free(instance.gate);
  if (keeping_ != nullptr) keeping_->ForgetInstance(instance.gate);
  remains_.Add(instance.gate, /*session_maps=*/false, charge);
  if (!instance.session_maps.empty()) {
    if (keeping_ != nullptr) keeping_->ForgetSharedMaps(instance.gate);
    remains_.Add(instance.gate, /*session_maps=*/true, /*charge=*/0);
  }
  daemon::LoaderRequest request;
  switch (instance.kept) {
    case KeptByLoader::kNothing:
      return;
    case KeptByLoader::kLoop:
      request.mutable_detach_loop()->set_gate_slot(instance.gate.slot);
      request.mutable_detach_loop()->set_gate_nonce(instance.gate.nonce);
      break;
    case KeptByLoader::kEntries:
    case KeptByLoader::kMaps:
      if (!close_gate) return;
      request.mutable_dismiss()->set_gate_slot(instance.gate.slot);
      request.mutable_dismiss()->set_gate_nonce(instance.gate.nonce);
  }
  // Whatever comes of it, the gate is closed.
  loader_.Send(std::move(request), {}, kLoadDeadline,
               [](const absl::StatusOr<LoaderClient::Reply>&) {});
}

size_t Pool::Ready(const std::string& program) const {
  const auto found = shelves_.find(program);
  return found == shelves_.end() ? 0 : found->second.ready.size();
}

bool Pool::Settled() const {
  return loading_ == 0 && !refill_.active() && !soon_.active();
}

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
      session_maps = Copy(waiter->session_maps);
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
