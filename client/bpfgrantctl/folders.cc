#include "client/bpfgrantctl/folders.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "client/bpfgrantctl/command.h"
#include "daemon/config_file.h"

namespace bpfgrant::ctl {

absl::StatusOr<v1::Config> DaemonsConfig() {
  v1::Config config;
  auto status =
      daemon::ReadConfigFile(daemon::kDefaultConfigFile, false, config);
  if (!status.ok()) return status;
  return config;
}

std::vector<std::string> Absolute(std::vector<std::string> paths) {
  for (std::string& path : paths) {
    path = std::filesystem::absolute(path).lexically_normal();
  }
  return paths;
}

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
  const auto config = DaemonsConfig();
  if (!config.ok()) return config.status();
  return daemon::CatalogFolders({}, *config);
}

absl::StatusOr<std::vector<std::string>> AdmissionOrDaemons(
    const std::vector<std::string>& given) {
  const auto config = DaemonsConfig();
  if (!config.ok()) return config.status();
  return Absolute(daemon::AdmissionFiles(given, *config));
}

absl::StatusOr<std::vector<std::string>> KeysOrDaemons(
    const std::vector<std::string>& given) {
  const auto config = DaemonsConfig();
  if (!config.ok()) return config.status();
  return Absolute(daemon::KeyFolders(given, *config));
}

}  // namespace bpfgrant::ctl
