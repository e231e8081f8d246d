#include "client/bpfgrant/swappable_map.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant {

absl::StatusOr<SwappableMap> SwappableMap::Of(const Grant& grant,
                                              const std::string& name) {
  int fds[2];
  for (int copy = 0; copy < 2; ++copy) {
    const auto handle = grant.Find(absl::StrCat(name, ".", copy));
    if (!handle.ok()) return handle.status();
    fds[copy] = (*handle)->fd.get();
  }
  return SwappableMap(name, fds[0], fds[1]);
}

absl::Status Rotate(Grant& grant, absl::Span<SwappableMap* const> maps,
                    std::chrono::milliseconds deadline) {
  std::vector<std::string> names;
  for (const SwappableMap* map : maps) names.push_back(map->name_);
  const absl::Status status = grant.Rotate(names, deadline).status();
  if (status.ok() || ReasonOf(status) == v1::REASON_STILL_READ) {
    for (SwappableMap* map : maps) map->now_ = 1 - map->now_;
  }
  return status;
}

}  // namespace bpfgrant
