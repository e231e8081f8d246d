#include "daemon/loader/policy_files.h"

#include <grp.h>
#include <pwd.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/loader/safe_file.h"
#include "policy/policy.h"
#include "proto/wire/limits.h"

namespace bpfgrant::daemon {
namespace {

constexpr std::string_view kPolicySuffix = ".policy";
// A group with many members needs a large buffer. Bytes.
constexpr size_t kMaxRecordBytes = 16 * 1024 * 1024;

// Calls getpwnam_r or getgrnam_r, with more room until the record fits.
template <typename Record, typename Number>
absl::StatusOr<Number> LookUp(int (*call)(const char*, Record*, char*, size_t,
                                          Record**),
                              std::string_view name, Number Record::*field) {
  const std::string wanted(name);
  for (size_t size = 4096; size <= kMaxRecordBytes; size *= 4) {
    std::vector<char> buffer(size);
    Record record;
    Record* found = nullptr;
    int error;
    do {
      error = call(wanted.c_str(), &record, buffer.data(), size, &found);
    } while (error == EINTR);
    if (found != nullptr) return record.*field;
    if (error == ERANGE) continue;
    // What the databases say of an unknown name varies (getpwnam(3)).
    if (error == 0 || error == ENOENT || error == ESRCH || error == EBADF ||
        error == EPERM) {
      return absl::NotFoundError(absl::StrCat("there is no '", wanted, "'"));
    }
    return absl::InternalError(
        absl::StrCat("looking up '", wanted, "': ", std::strerror(error)));
  }
  return absl::InternalError(
      absl::StrCat("looking up '", wanted, "': the record is too long"));
}

class MachineNames : public policy::NameResolver {
 public:
  absl::StatusOr<uid_t> User(std::string_view name) const override {
    return LookUp(getpwnam_r, name, &passwd::pw_uid);
  }
  absl::StatusOr<gid_t> Group(std::string_view name) const override {
    return LookUp(getgrnam_r, name, &group::gr_gid);
  }
};

absl::Status AddFolder(const std::string& path, const Mitigations& mitigations,
                       std::map<std::string, policy::PolicyText>& found) {
  const auto folder = SafeDirectory::Open(path, mitigations);
  if (absl::IsNotFound(folder.status())) return absl::OkStatus();
  if (!folder.ok()) return folder.status();
  const auto files = folder->List(kPolicySuffix);
  if (!files.ok()) return files.status();
  for (const std::string& file : *files) {
    const auto bytes = folder->Read(file, kMaxTextFileBytes);
    if (!bytes.ok()) return bytes.status();
    found[file] = {folder->PathOf(file), std::string(bytes->view())};
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<CompiledRule>> ReadPolicy(
    absl::Span<const std::string> folders, const Mitigations& mitigations) {
  std::map<std::string, policy::PolicyText> found;
  for (const std::string& path : folders) {
    if (auto status = AddFolder(path, mitigations, found); !status.ok()) {
      return status;
    }
  }
  std::vector<policy::PolicyText> texts;
  texts.reserve(found.size());
  for (auto& [file, text] : found) texts.push_back(std::move(text));
  return policy::Compile(texts, MachineNames());
}

}  // namespace bpfgrant::daemon
