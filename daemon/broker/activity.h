// What programs and grants do, as the loader reads it from the kernel, for
// whoever asks: one look serves all who ask while it is new.
//
// It must not decide who may ask.

#ifndef DAEMON_BROKER_ACTIVITY_H_
#define DAEMON_BROKER_ACTIVITY_H_

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "bpfgrant/v1/metrics.pb.h"
#include "daemon/broker/ledger.h"
#include "daemon/broker/loader_client.h"

namespace bpfgrant::broker {

// One look.
struct ActivityReport {
  struct RingBuffers {
    uint64_t size_bytes = 0;
    uint64_t used_bytes = 0;
    double fullest = 0;  // of 1
  };

  int64_t at_ns = 0;
  bool counting = false;
  std::string unavailable;                    // why nothing else is here
  std::vector<v1::ProgramActivity> programs;  // by name
  std::vector<v1::GrantActivity> grants;      // by id, live ones
  // Of live grants, by program and map.
  std::map<std::pair<std::string, std::string>, RingBuffers> ring_buffers;
};

class Activity {
 public:
  using Clock = std::chrono::steady_clock;
  // Called once, at once or later; never with nullptr.
  using Done =
      absl::AnyInvocable<void(const std::shared_ptr<const ActivityReport>&)>;

  Activity(LoaderClient& loader, Ledger& ledger)
      : loader_(loader), ledger_(ledger) {}

  void Ask(Done done);

 private:
  void OnReply(absl::StatusOr<LoaderClient::Reply> reply);
  absl::StatusOr<ActivityReport> Read(const LoaderClient::Reply& reply) const;

  LoaderClient& loader_;
  Ledger& ledger_;
  std::shared_ptr<const ActivityReport> last_;
  Clock::time_point new_until_{};
  std::vector<Done> waiting_;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_ACTIVITY_H_
