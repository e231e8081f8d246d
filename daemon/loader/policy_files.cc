#include "daemon/loader/policy_files.h"

#include <grp.h>
#include <pwd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "daemon/loader/layers.h"
#include "policy/policy.h"
#include "proto/wire/limits.h"

namespace bpfgrant::daemon {
namespace {

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

class Databases : public policy::NameResolver {
 public:
  absl::StatusOr<uid_t> User(std::string_view name) const override {
    return LookUp(getpwnam_r, name, &passwd::pw_uid);
  }
  absl::StatusOr<gid_t> Group(std::string_view name) const override {
    return LookUp(getgrnam_r, name, &group::gr_gid);
  }
};

absl::StatusOr<std::vector<policy::PolicyText>> ReadTexts(
    absl::Span<const std::string> folders, const Mitigations& mitigations) {
  const auto layers = OpenLayers(folders, mitigations);
  if (!layers.ok()) return layers.status();
  for (const Layer& layer : *layers) {
    if (!layer.safety.ok()) return layer.safety;
  }
  const auto files = FindFiles(*layers, kPolicySuffix);
  if (!files.ok()) return files.status();
  std::vector<policy::PolicyText> texts;
  for (const auto& [name, layer] : *files) {
    const auto bytes = ReadLayered(layer, name, kMaxTextFileBytes);
    if (!bytes.ok()) return bytes.status();
    texts.push_back({layer.folder->PathOf(name), std::string(bytes->view())});
  }
  return texts;
}

absl::StatusOr<Policy> CompileTexts(
    absl::Span<const policy::PolicyText> texts,
    absl::Span<const std::string> catalog_folders) {
  auto rules = policy::Compile(texts, MachineNames());
  if (!rules.ok()) return rules.status();
  auto signatures = policy::SignatureRules::Compile(texts, catalog_folders);
  if (!signatures.ok()) return signatures.status();
  return Policy{*std::move(rules), *std::move(signatures)};
}

}  // namespace

const policy::NameResolver& MachineNames() {
  static const Databases databases;
  return databases;
}

absl::StatusOr<Policy> ReadPolicy(absl::Span<const std::string> folders,
                                  absl::Span<const std::string> catalog_folders,
                                  const Mitigations& mitigations) {
  const auto texts = ReadTexts(folders, mitigations);
  if (!texts.ok()) return texts.status();
  return CompileTexts(*texts, catalog_folders);
}

PolicyCheck CheckPolicy(absl::Span<const std::string> folders,
                        absl::Span<const std::string> catalog_folders,
                        const Mitigations& mitigations) {
  PolicyCheck check;
  const auto texts = ReadTexts(folders, mitigations);
  if (!texts.ok()) {
    check.complaints.push_back(texts.status());
    return check;
  }
  for (const policy::PolicyText& text : *texts) {
    const auto alone = CompileTexts({text}, catalog_folders);
    if (!alone.ok()) check.complaints.push_back(alone.status());
  }
  if (!check.complaints.empty()) return check;
  auto policy = CompileTexts(*texts, catalog_folders);
  if (policy.ok()) {
    check.policy = *std::move(policy);
  } else {
    check.complaints.push_back(policy.status());
  }
  return check;
}

}  // namespace bpfgrant::daemon
