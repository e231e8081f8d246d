#include "client/bpfgrantctl/folders.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "client/bpfgrantctl/command.h"
#include "daemon/config_file.h"

namespace bpfgrant::ctl {

absl::StatusOr<std::string> ExistingFolder(const std::string& option,
                                           const std::string& folder) {
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) {
    return UsageError(absl::StrCat(option, ": there is no folder ", folder));
  }
  std::string path = std::filesystem::absolute(folder).lexically_normal();
  if (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path;
}

absl::StatusOr<std::vector<std::string>> CatalogOrDaemons(
    const std::vector<std::string>& given) {
  std::vector<std::string> folders;
  for (const std::string& folder : given) {
    auto path = ExistingFolder("--catalog", folder);
    if (!path.ok()) return path.status();
    folders.push_back(*std::move(path));
  }
  if (!folders.empty()) return folders;
  v1::Config config;
  auto status =
      daemon::ReadConfigFile(daemon::kDefaultConfigFile, false, config);
  if (!status.ok()) return status;
  return daemon::CatalogFolders({}, config);
}

absl::StatusOr<std::vector<std::string>> AdmissionOrDaemons(
    const std::vector<std::string>& given) {
  v1::Config config;
  if (given.empty()) {
    auto status =
        daemon::ReadConfigFile(daemon::kDefaultConfigFile, false, config);
    if (!status.ok()) return status;
  }
  std::vector<std::string> files = daemon::AdmissionFiles(given, config);
  for (std::string& file : files) {
    file = std::filesystem::absolute(file).lexically_normal();
  }
  return files;
}

}  // namespace bpfgrant::ctl
