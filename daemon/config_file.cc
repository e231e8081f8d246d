#include "daemon/config_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "proto/text/text_file.h"
#include "proto/wire/limits.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::daemon {
namespace {

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.valid()) {
    return absl::NotFoundError(absl::StrCat(path, ": ", std::strerror(errno)));
  }
  struct stat status {};
  if (fstat(file.get(), &status) < 0 || !S_ISREG(status.st_mode) ||
      static_cast<size_t>(status.st_size) > kMaxTextFileBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": not a file of at most ", kMaxTextFileBytes, " bytes"));
  }
  std::string bytes(static_cast<size_t>(status.st_size), '\0');
  const ssize_t got = read(file.get(), bytes.data(), bytes.size());
  bytes.resize(got < 0 ? 0 : static_cast<size_t>(got));
  return bytes;
}

template <typename List>
std::vector<std::string> Choose(const std::vector<std::string>& given,
                                const List& configured,
                                std::vector<std::string> otherwise) {
  if (!given.empty()) return given;
  if (!configured.empty()) return {configured.begin(), configured.end()};
  return otherwise;
}

}  // namespace

absl::Status ReadConfigFile(const std::string& path, bool named,
                            v1::Config& config) {
  const absl::StatusOr<std::string> bytes = ReadFile(path);
  if (absl::IsNotFound(bytes.status()) && !named) return absl::OkStatus();
  if (!bytes.ok()) return bytes.status();
  TextFile file(path);
  return file.Parse(*bytes, config);
}

std::vector<std::string> CatalogFolders(const std::vector<std::string>& given,
                                        const v1::Config& config) {
  return Choose(given, config.catalog_directory(),
                {"/usr/lib/bpfgrant/programs", "/run/bpfgrant/programs",
                 "/etc/bpfgrant/programs"});
}

std::vector<std::string> PolicyFolders(const std::vector<std::string>& given,
                                       const v1::Config& config) {
  return Choose(given, config.policy_directory(),
                {"/usr/lib/bpfgrant/policy.d", "/run/bpfgrant/policy.d",
                 "/etc/bpfgrant/policy.d"});
}

std::vector<std::string> KeyFolders(const std::vector<std::string>& given,
                                    const v1::Config& config) {
  return Choose(
      given, config.key_directory(),
      {"/usr/lib/bpfgrant/keys", "/run/bpfgrant/keys", "/etc/bpfgrant/keys"});
}

std::vector<std::string> AdmissionFiles(const std::vector<std::string>& given,
                                        const v1::Config& config) {
  return Choose(
      given, config.admission_file(),
      {"/usr/lib/bpfgrant/admission.conf", "/etc/bpfgrant/admission.conf"});
}

}  // namespace bpfgrant::daemon
