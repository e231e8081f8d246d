// The daemon's command line and configuration file, as one set of options.

#ifndef DAEMON_OPTIONS_H_
#define DAEMON_OPTIONS_H_

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "bpfgrant/v1/config.pb.h"

namespace bpfgrant::daemon {

struct Options {
  std::string runtime_directory;
  std::vector<std::string> catalog_directories;
  std::vector<std::string> policy_directories;
  std::vector<std::string> key_directories;
  std::vector<std::string> admission_files;
  uid_t broker_uid = 0;
  gid_t broker_gid = 0;
  std::optional<gid_t> administrator_group;
  v1::Limits limits;  // every one filled in
  bool identify_by_nonce = false;
  bool verbose = false;
};

// What the command line asks for: options to run with, or the exit status of
// a process that is done (--help, --version, bad usage), which has printed.
std::variant<Options, int> ReadOptions(int argc, char** argv);

// "name", "UID" or "UID:GID" as numbers. kNotFound for a name nobody has.
absl::Status ParseUser(const std::string& text, uid_t& uid, gid_t& gid);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_OPTIONS_H_
