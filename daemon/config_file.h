// The daemon's configuration file, for whoever has to know where things are.

#ifndef DAEMON_CONFIG_FILE_H_
#define DAEMON_CONFIG_FILE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "bpfgrant/v1/config.pb.h"

namespace bpfgrant::daemon {

inline constexpr char kDefaultConfigFile[] = "/etc/bpfgrant/bpfgrantd.conf";

// Without the file `config` stays as it is, unless the administrator `named`
// it. kNotFound; kInvalidArgument: no plain file of bearable size;
// REASON_FILE_INVALID, with the place.
absl::Status ReadConfigFile(const std::string& path, bool named,
                            v1::Config& config);

// The folders of the catalog: those given, else the configuration's, else the
// usual ones.
std::vector<std::string> CatalogFolders(const std::vector<std::string>& given,
                                        const v1::Config& config);

// Those of the policy, likewise.
std::vector<std::string> PolicyFolders(const std::vector<std::string>& given,
                                       const v1::Config& config);

// Those of the keys, likewise.
std::vector<std::string> KeyFolders(const std::vector<std::string>& given,
                                    const v1::Config& config);

// The files of admission limits, likewise.
std::vector<std::string> AdmissionFiles(const std::vector<std::string>& given,
                                        const v1::Config& config);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_CONFIG_FILE_H_
