// The client's view of a swappable map: two maps, of which the program sees
// one.
//
//   auto counts = SwappableMap::Of(grant, "counts");
//   ... fill counts->spare() ...
//   absl::Status status = Rotate(grant, {&*counts});
//   ... read and clear counts->spare(), which no run writes any more ...

#ifndef BPFGRANT_SWAPPABLE_MAP_H_
#define BPFGRANT_SWAPPABLE_MAP_H_

#include <chrono>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "client/bpfgrant/grant.h"

namespace bpfgrant {

// Not thread-safe. What it says is as of the last Rotate below; before, as in a
// new grant.
class SwappableMap {
 public:
  // `name` is the manifest's handle. kNotFound: the grant came without both of
  // its maps. Must not outlive the grant's fds: it has their numbers.
  static absl::StatusOr<SwappableMap> Of(const Grant& grant,
                                         const std::string& name);

  const std::string& name() const { return name_; }
  // The fd of the one that runs of the program see.
  int current() const { return fds_[now_]; }
  // And of the other one.
  int spare() const { return fds_[1 - now_]; }

 private:
  friend absl::Status Rotate(Grant& grant, absl::Span<SwappableMap* const> maps,
                             std::chrono::milliseconds deadline);
  SwappableMap(std::string name, int first, int second)
      : name_(std::move(name)), fds_{first, second} {}

  std::string name_;
  int fds_[2];
  int now_ = 0;
};

// Turns `maps` over, all at once. OK: no run has what is `spare()` now.
// REASON_STILL_READ: they are turned over, but see Grant::Rotate. Another error
// changed nothing.
absl::Status Rotate(
    Grant& grant, absl::Span<SwappableMap* const> maps,
    std::chrono::milliseconds deadline = std::chrono::seconds(2));

}  // namespace bpfgrant

#endif  // BPFGRANT_SWAPPABLE_MAP_H_
