#include "daemon/loader/loader.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "daemon/loader/admission.h"
#include "daemon/loader/attach.h"
#include "daemon/loader/broker_channel.h"
#include "daemon/loader/gate_map.h"
#include "daemon/loader/grace_keeper.h"
#include "daemon/loader/instance.h"
#include "daemon/loader/kernel.h"
#include "daemon/loader/loop_object.h"
#include "daemon/loader/privileges.h"
#include "daemon/loader/requests.h"
#include "daemon/stored_names.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::daemon {
namespace {

// Requests taken in one turn, before attachments get theirs.
constexpr int kRequestsPerTurn = 16;

absl::Status TakeRequests(BrokerChannel& broker, Requests& requests) {
  for (int i = 0; i < kRequestsPerTurn; ++i) {
    auto request = broker.Receive();
    if (absl::IsUnavailable(request.status())) return absl::OkStatus();
    if (!request.ok()) return request.status();
    if (auto status = requests.Handle(*std::move(request)); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

// How long poll(2) may wait, in its milliseconds; -1: for ever.
int Timeout(const Requests& requests) {
  if (requests.has_reload()) return 0;
  const auto next = requests.NextDeadline();
  if (!next.has_value()) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(
      *next - Children::Clock::now());
  return static_cast<int>(std::max<int64_t>(left.count(), 0));
}

// Until the broker is gone (kOutOfRange) or breaks the protocol (any other).
absl::Status Serve(BrokerChannel& broker, Requests& requests, FdStore& store) {
  std::vector<pollfd> polled;
  for (;;) {
    polled.clear();
    polled.push_back({broker.fd(), broker.events(), 0});
    requests.AddTo(polled);
    if (store.queued() > 0) polled.push_back({store.fd(), POLLOUT, 0});
    if (poll(polled.data(), polled.size(), Timeout(requests)) < 0 &&
        errno != EINTR) {
      return absl::InternalError(absl::StrCat("poll: ", std::strerror(errno)));
    }
    if (auto status = requests.AnswerChildren(); !status.ok()) return status;
    if (auto status = broker.Flush(); !status.ok()) return status;
    store.Flush();
    const auto begin = Children::Clock::now();
    if (auto status = TakeRequests(broker, requests); !status.ok())
      return status;
    // Half of the time at least, so that no flood delays what is withdrawn.
    if (requests.has_reload()) {
      const auto took = Children::Clock::now() - begin;
      if (auto status = requests.ContinueReload(took); !status.ok()) {
        return status;
      }
    }
    // Not read while replies pile up, its end must still be seen.
    if ((polled.front().revents & POLLERR) != 0 ||
        ((polled.front().revents & POLLHUP) != 0 &&
         (broker.events() & POLLIN) == 0)) {
      return absl::OutOfRangeError("the broker is gone");
    }
  }
}

// The map of an earlier loader's, if it is there and can be such a map; else a
// new one, which is kept from now on.
absl::StatusOr<UniqueFd> TakeOrMake(const char* name,
                                    absl::StatusOr<UniqueFd> (*make)(),
                                    StoredFds& found, FdStore& store) {
  auto made = make();
  if (!made.ok()) return made.status();
  const auto kept = found.find(name);
  if (kept != found.end()) {
    UniqueFd map = std::move(found.extract(kept).mapped());
    if (AreAlike(map.get(), made->get())) return map;
    store.Remove(name);
  }
  const int number = made->get();
  store.Put(name, absl::MakeSpan(&number, 1));
  return made;
}

absl::StatusOr<GateMap> TakeOrMakeGates(StoredFds& found, FdStore& store) {
  auto map = TakeOrMake(kStoredGates, GateMap::MakeMap, found, store);
  if (!map.ok()) return map.status();
  return GateMap::Map(*std::move(map));
}

// Waits until the service manager has what is queued for it, not for ever.
void Settle(FdStore& store) {
  constexpr int kPatienceMs = 2'000, kTurnMs = 20;
  for (int waited = 0; waited < kPatienceMs; waited += kTurnMs) {
    store.Flush();
    if (store.queued() == 0) return;
    pollfd writable{store.fd(), POLLOUT, 0};
    poll(&writable, 1, kTurnMs);
  }
}

// What must be there before the first promise to the broker.
absl::Status Run(BrokerChannel& broker, const LoaderOptions& options,
                 StoredFds found, bool& ready) {
  FdStore store = FdStore::FromEnvironment();
  for (const auto& [name, fd] : found) store.Adopt(name, 1);
  // Before the drop: some of it only root may see, some takes a ring.
  const v1::KernelFacts kernel = ReadKernelFacts();
  if (auto status = DropToLoader(kernel.io_uring_loops(), MayLookAtProcesses());
      !status.ok()) {
    return status;
  }
  auto admission = Admission::Create(kernel, options.mitigations);
  if (!admission.ok()) return admission.status();
  auto gates = TakeOrMakeGates(found, store);
  if (!gates.ok()) return gates.status();
  // One that does not come to serve anybody leaves nothing behind that nobody
  // can close.
  absl::Cleanup close = [&gates] { gates->CloseAll(); };
  Requests::LoopMaps loop_maps;
  if (kernel.io_uring_loops()) {
    auto made = TakeOrMake(kStoredTrace, MakeTraceBuffer, found, store);
    if (!made.ok()) return made.status();
    loop_maps.trace = *std::move(made);
    made = TakeOrMake(kStoredSteps, MakeStepsMap, found, store);
    if (!made.ok()) return made.status();
    loop_maps.steps = *std::move(made);
  }
  Requests requests(broker, options, *gates, *std::move(admission),
                    std::move(loop_maps), store, std::move(found));
  auto snapshot = requests.Read();
  if (!snapshot.ok()) return snapshot.status();
  auto grace_keeper = StartGraceKeeper();
  if (!grace_keeper.ok()) return grace_keeper.status();
  ready = true;
  std::move(close).Cancel();
  auto status = requests.SendReady(kernel, *std::move(snapshot),
                                   *std::move(grace_keeper));
  if (status.ok()) status = Serve(broker, requests, store);
  // With a store, whoever comes next decides; the broker closes them when it
  // stops for good.
  if (store.keeps()) {
    Settle(store);
  } else {
    gates->CloseAll();
  }
  return status;
}

}  // namespace

int RunLoader(UniqueFd socket, const LoaderOptions& options, StoredFds found) {
  BrokerChannel broker(std::move(socket));
  bool ready = false;
  const absl::Status end = Run(broker, options, std::move(found), ready);
  if (absl::IsOutOfRange(end)) return 0;
  if (!ready) {
    LoaderReply reply;
    *reply.mutable_refusal() = RefusalOf(end);
    // If it cannot be said, the exit status has to do.
    (void)broker.Send(std::move(reply), {});
  }
  return 1;
}

}  // namespace bpfgrant::daemon
