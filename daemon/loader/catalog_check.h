// Which programs of a catalog a kernel takes, told without a daemon and without
// anything that stays: of this kernel by loading each variant on trial, of
// another by its BTF.

#ifndef DAEMON_LOADER_CATALOG_CHECK_H_
#define DAEMON_LOADER_CATALOG_CHECK_H_

#include <chrono>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bpfgrant/v1/check.pb.h"

namespace bpfgrant::daemon {

struct CheckOptions {
  std::vector<std::string> folders;   // as the daemon's --catalog
  std::vector<std::string> programs;  // by name; none: all
  // As the daemon's --admission.
  std::vector<std::string> admission_files;
  // BTF of another kernel, or an ELF file with it: judges by that. "": this
  // kernel's.
  std::string btf_file;
  // The policy files in the folders, too, and whether the programs are signed
  // as they want it, by keys in `key_folders`.
  bool policy = false;
  std::vector<std::string> key_folders;
  // Folders of programs that the policy may name.
  std::vector<std::string> known_folders;
  // Whether a file that others than its owner and root can write is refused,
  // as the daemon does.
  bool judge_files = true;
  std::chrono::milliseconds deadline{125'000};
};

// All variants are looked at, not only up to the first that fits. Without the
// privilege to load, this kernel is judged by its BTF, too, and the reply says
// so. What is wrong with a program is in the reply.
//
// Works in a child of its own (confinement.h); to be called before there are
// threads. Errors: REASON_UNKNOWN_PROGRAM; kInvalidArgument: the BTF;
// FindManifests'; RunConfined's.
absl::StatusOr<v1::CheckReply> CheckCatalog(const CheckOptions& options);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_CATALOG_CHECK_H_
