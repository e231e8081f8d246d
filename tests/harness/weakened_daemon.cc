// bpfgrantd_weakened: the daemon with defences switched off by name,
// --without NAME,NAME (daemon/mitigations.h has the names), so that a test can
// show the attack which they stop. Built for tests, never installed; what is
// installed has no such option.

#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_split.h"
#include "daemon/mitigations.h"
#include "daemon/run.h"

int main(int argc, char** argv) {
  bpfgrant::daemon::Mitigations mitigations;
  std::vector<char*> arguments;  // those that are the daemon's own
  for (int i = 0; i < argc; ++i) {
    if (std::string_view(argv[i]) != "--without") {
      arguments.push_back(argv[i]);
      continue;
    }
    if (++i == argc) {
      std::fprintf(stderr, "%s: --without needs names\n", argv[0]);
      return 2;
    }
    const std::vector<std::string> names = absl::StrSplit(argv[i], ',');
    const absl::Status status = mitigations.Without(names);
    if (!status.ok()) {
      std::fprintf(stderr, "%s: %s\n", argv[0],
                   std::string(status.message()).c_str());
      return 2;
    }
  }
  arguments.push_back(nullptr);
  return bpfgrant::daemon::Run(static_cast<int>(arguments.size()) - 1,
                               arguments.data(), mitigations);
}
