#include "daemon/broker/pool.h"

#include <fcntl.h>

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "daemon/broker/keeping.h"
#include "daemon/broker/remains.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant::broker {
namespace {

// For the test that shows why an instance must not be handed out twice.
Instance Copy(const Instance& instance) {
  return {
      instance.digest, instance.gate, CopyFds(instance.fds), instance.kept, {}};
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

}  // namespace

std::vector<UniqueFd> CopyFds(const std::vector<UniqueFd>& fds) {
  std::vector<UniqueFd> copies;
  for (const UniqueFd& fd : fds) {
    copies.emplace_back(fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
  }
  return copies;
}

bool HasProgram(KeptByLoader kept) {
  return kept == KeptByLoader::kLoop || kept == KeptByLoader::kMaps;
}

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

}  // namespace bpfgrant::broker
