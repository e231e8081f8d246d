#include "daemon/broker/watchdog.h"

#include <systemd/sd-daemon.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "proto/refusal/refusal.h"
#include "spdlog/spdlog.h"

namespace bpfgrant::broker {

void Watchdog::Start() {
  uint64_t given = 0;  // microseconds
  if (sd_watchdog_enabled(/*unset_environment=*/0, &given) <= 0) return;
  interval_ = std::max(std::chrono::milliseconds(1),
                       std::chrono::milliseconds(given / 3000));
  Ask();
}

void Watchdog::Stop() {
  interval_ = std::chrono::milliseconds(0);
  timer_ = EventLoop::Source();
}

void Watchdog::Ask() {
  if (interval_.count() == 0) return;
  timer_ = loop_.Timer(interval_, [this] { Ask(); });
  // What remains of nothing: the loader looks and changes nothing.
  daemon::LoaderRequest request;
  request.mutable_look();
  loader_.Send(
      std::move(request), {}, interval_,
      [this](absl::StatusOr<LoaderClient::Reply> reply) {
        // A refusal is an answer, too; of BUSY it is not known whose.
        OnAnswer(reply.ok() || ReasonOf(reply.status()) != v1::REASON_BUSY);
      });
}

void Watchdog::OnAnswer(bool answered) {
  if (interval_.count() == 0) return;
  if (answered) {
    sd_notify(0, "WATCHDOG=1");
  } else if (!silent_) {
    spdlog::error("the loader has not answered for {} ms", interval_.count());
  }
  silent_ = !answered;
}

}  // namespace bpfgrant::broker
