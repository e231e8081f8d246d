// What differs between two catalogs: what they approve and what clients see of
// it.

#ifndef DAEMON_LOADER_INSPECTION_CATALOG_DIFF_H_
#define DAEMON_LOADER_INSPECTION_CATALOG_DIFF_H_

#include <chrono>
#include <string>

#include "absl/status/statusor.h"
#include "bpfgrant/v1/inspection.pb.h"

namespace bpfgrant::daemon {

struct DiffOptions {
  std::string before, after;  // folders, absolute
  // Whether a folder or file that others than its owner and root can write is
  // refused, as the daemon does.
  bool judge_files = true;
  std::chrono::milliseconds deadline{125'000};
};

// By the programs' names; asks no kernel. A program that admission would refuse
// by itself differs in its refusal. Works in a child of its own
// (confinement.h); to be called before there are threads. Errors:
// FindManifests', RunConfined's.
absl::StatusOr<v1::CatalogDiff> CompareCatalogs(const DiffOptions& options);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_INSPECTION_CATALOG_DIFF_H_
