#include "daemon/loader/admission_files.h"

#include "absl/strings/str_cat.h"
#include "daemon/loader/safe_file.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant::daemon {

absl::StatusOr<AdmissionLimits> ReadAdmissionLimits(
    absl::Span<const std::string> files, const Mitigations& mitigations) {
  AdmissionLimits limits;
  for (const std::string& path : files) {
    const size_t slash = path.rfind('/');
    if (slash == std::string::npos) {
      return Refuse(
          v1::REASON_INVALID_ARGUMENT,
          absl::StrCat("admission file '", path, "': give an absolute path"));
    }
    const auto folder = SafeDirectory::Open(
        slash == 0 ? "/" : path.substr(0, slash), mitigations);
    if (absl::IsNotFound(folder.status())) continue;
    if (!folder.ok()) return folder.status();
    const auto bytes = folder->Read(path.substr(slash + 1), kMaxTextFileBytes);
    if (absl::IsNotFound(bytes.status())) continue;
    if (!bytes.ok()) return bytes.status();
    if (auto status = limits.Override(path, bytes->view()); !status.ok()) {
      return status;
    }
  }
  return limits;
}

}  // namespace bpfgrant::daemon
