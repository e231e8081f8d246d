#include "daemon/broker/remains.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"
#include "spdlog/spdlog.h"

namespace bpfgrant::broker {
namespace {

// What nobody keeps is gone after a grace period of the kernel's.
constexpr std::chrono::milliseconds kFirstPause{20};
constexpr std::chrono::milliseconds kLongestPause{10'000};
// While somebody waits.
constexpr std::chrono::milliseconds kShortPause{5};
// Looking takes a tenth of the loader's time at most, however much the machine
// has.
constexpr int kShare = 10;

}  // namespace

Remains::Remains(EventLoop& loop, LoaderClient& loader, Ledger& ledger,
                 bool looks)
    : loop_(loop), loader_(loader), ledger_(ledger), looks_(looks) {}

void Remains::Add(Gates::Gate gate, bool session_maps, uint64_t charge) {
  if (!looks_) return;
  charged_ += charge != 0;
  entries_.emplace(Clock::now() + kFirstPause,
                   Entry{gate, session_maps, charge, kFirstPause});
  Schedule();
}

void Remains::Schedule() {
  if (looking_ || entries_.empty()) return;
  const auto due = std::max(entries_.begin()->first, not_before_);
  if (timer_.active() && next_look_ <= due) return;
  next_look_ = due;
  const auto wait =
      std::chrono::ceil<std::chrono::milliseconds>(due - Clock::now());
  timer_ = loop_.Timer(std::max(wait, std::chrono::milliseconds(0)),
                       [this] { Look(); });
}

void Remains::Look() {
  timer_ = EventLoop::Source();
  daemon::LoaderRequest request;
  daemon::LookRequest& look = *request.mutable_look();
  const auto now = Clock::now();
  while (!entries_.empty() && entries_.begin()->first <= now &&
         looked_at_.size() < kMaxLookedAt) {
    const Entry& entry =
        looked_at_.emplace_back(std::move(entries_.begin()->second));
    entries_.erase(entries_.begin());
    daemon::LookRequest::Instance& instance = *look.add_instance();
    instance.set_gate_slot(entry.gate.slot);
    instance.set_gate_nonce(entry.gate.nonce);
    instance.set_session_maps(entry.session_maps);
  }
  if (looked_at_.empty()) {
    Schedule();
    return;
  }
  looking_ = true;
  loader_.Send(std::move(request), {}, kLoadDeadline,
               [this](absl::StatusOr<LoaderClient::Reply> reply) {
                 OnLooked(std::move(reply));
               });
}

void Remains::OnLooked(absl::StatusOr<LoaderClient::Reply> reply) {
  looking_ = false;
  std::vector<Entry> entries = std::exchange(looked_at_, {});
  std::vector<bool> held(entries.size(), !reply.ok());
  if (reply.ok()) {
    const daemon::LookReply& look = reply->message.look();
    not_before_ =
        Clock::now() + std::chrono::microseconds(look.took_us()) * (kShare - 1);
    for (const daemon::LookReply::Held& left : look.held()) {
      if (left.index() >= entries.size()) continue;
      held[left.index()] = true;
      ledger_.SetHeld(entries[left.index()].charge, left.object());
    }
  } else if (ReasonOf(reply.status()) != v1::REASON_DAEMON_STOPPED) {
    spdlog::warn("looking at what is left: {}", reply.status().ToString());
  }
  std::vector<Entry> gone;
  for (size_t i = 0; i < entries.size(); ++i) {
    if (held[i]) {
      Keep(std::move(entries[i]));
    } else {
      gone.push_back(std::move(entries[i]));
    }
  }
  // These may have others begin to wait.
  for (const Entry& entry : gone) Gone(entry);
  Schedule();
}

void Remains::Keep(Entry entry) {
  entry.pause = IsAwaited(entry)
                    ? kShortPause
                    : std::clamp(2 * entry.pause, kFirstPause, kLongestPause);
  const auto due = Clock::now() + entry.pause;
  entries_.emplace(due, std::move(entry));
}

void Remains::Gone(const Entry& entry) {
  if (entry.charge == 0) return;
  --charged_;
  last_gone_ = Clock::now();
  const v1::GrantInfo info = ledger_.Return(entry.charge);
  Answer(entry.charge, absl::OkStatus());
  AnswerRoom({info.rule(), uid_t{info.uid()}}, absl::OkStatus());
}

bool Remains::IsAwaited(const Entry& entry) const {
  if (waiters_.contains(entry.charge)) return true;
  const v1::GrantInfo* info = ledger_.FindRetired(entry.charge);
  return info != nullptr &&
         room_.contains(Account(info->rule(), uid_t{info->uid()}));
}

void Remains::Hurry(absl::FunctionRef<bool(const Entry&)> matches) {
  std::vector<Entry> hurried;
  for (auto entry = entries_.begin(); entry != entries_.end();) {
    if (!matches(entry->second)) {
      ++entry;
      continue;
    }
    hurried.push_back(std::move(entry->second));
    entry = entries_.erase(entry);
  }
  for (Entry& entry : hurried) entries_.emplace(Clock::now(), std::move(entry));
  Schedule();
}

void Remains::Await(uint64_t charge, std::chrono::milliseconds patience,
                    Done done) {
  if (waiters_.contains(charge)) {
    done(Refuse(v1::REASON_BUSY,
                absl::StrCat("somebody waits for grant ", charge, " already")));
    return;
  }
  Waiter& waiter = waiters_[charge];
  waiter.done = std::move(done);
  waiter.deadline = loop_.Timer(patience, [this, charge, patience] {
    const v1::GrantInfo* info = ledger_.FindRetired(charge);
    Answer(charge,
           Refuse(v1::REASON_STILL_HELD,
                  absl::StrCat("grant ", charge, " was released; after ",
                               patience.count(), " ms the kernel still has ",
                               info == nullptr || info->held().empty()
                                   ? "something of it"
                                   : info->held())));
  });
  Hurry([charge](const Entry& entry) { return entry.charge == charge; });
}

void Remains::AwaitRoom(const std::string& rule, uid_t uid,
                        Clock::time_point until, Done done) {
  const Account account(rule, uid);
  const uint64_t id = next_waiter_++;
  Waiter waiter{std::move(done), {}};
  const auto patience =
      std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now());
  waiter.deadline = loop_.Timer(
      std::max(patience, std::chrono::milliseconds(0)), [this, account, id] {
        auto& waiting = room_[account];
        const auto found =
            std::find_if(waiting.begin(), waiting.end(),
                         [id](const auto& each) { return each.first == id; });
        Done expired = std::move(found->second.done);
        waiting.erase(found);
        if (waiting.empty()) room_.erase(account);
        expired(absl::DeadlineExceededError("nothing was given back"));
      });
  room_[account].emplace_back(id, std::move(waiter));
  Hurry([&](const Entry& entry) { return IsAwaited(entry); });
}

void Remains::Answer(uint64_t charge, absl::Status status) {
  const auto found = waiters_.find(charge);
  if (found == waiters_.end()) return;
  Done done = std::move(found->second.done);
  waiters_.erase(found);
  done(std::move(status));
}

void Remains::AnswerRoom(const Account& account, const absl::Status& status) {
  const auto found = room_.find(account);
  if (found == room_.end()) return;
  auto waiting = std::move(found->second);
  room_.erase(found);
  for (auto& [id, waiter] : waiting) waiter.done(status);
}

void Remains::Stop() {
  const absl::Status stopped =
      Refuse(v1::REASON_DAEMON_STOPPED, "the daemon stops");
  while (!waiters_.empty()) Answer(waiters_.begin()->first, stopped);
  while (!room_.empty()) AnswerRoom(Account(room_.begin()->first), stopped);
}

}  // namespace bpfgrant::broker
